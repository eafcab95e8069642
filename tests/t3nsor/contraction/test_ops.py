"""Every plan equals the dense matrix in values and gradients, alone and beside a dense weight."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3nsor import TensorTrain, random_matrix
from t3nsor.contraction.cost_model import modes_per_block
from t3nsor.contraction.engine import contraction_for
from t3nsor.contraction.plans import STRATEGIES, candidates
from tests.t3nsor.contraction.cases import PLANS, contract, inputs, reference, small


@st.composite
def chains(draw, largest_d=4):
    d, ring = draw(st.integers(1, largest_d)), draw(st.booleans())
    shape = [[draw(st.integers(1, 4)) for _ in range(d)] for _ in range(2)]
    ranks = [draw(st.integers(1, 3)) for _ in range(d if ring else d - 1)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return random_matrix(shape, ranks, ring=ring, trainable=True, dtype=torch.float64, generator=generator)


def plans_of(x, tt, beside):
    """Every plan of the backward pass, which include those of the forward pass."""
    return candidates(contraction_for(x, tt.cores, tt.closed, beside).spec, "auto", backward=True)


@settings(max_examples=100, deadline=None)
@given(chains(), st.data(), st.lists(st.sampled_from([0, 1, 2, 20]), max_size=2), st.booleans(), st.booleans())
def test_every_plan_equals_the_dense_matrix_in_value_and_gradient(tt, data, leading, beside, biased):
    x, weight, bias = inputs(tt, leading, beside, biased)
    strategy = data.draw(st.sampled_from([*STRATEGIES, *plans_of(x, tt, beside)]))
    y, expected = contract(x, weight, bias, tt, strategy), reference(x, weight, bias, tt)
    assert y.shape == expected.shape
    assert torch.allclose(y, expected)
    direction = torch.randn_like(expected)
    tensors = [t for t in (x, weight, bias, *tt.parameters()) if t is not None]
    tensors = data.draw(st.lists(st.sampled_from(tensors), min_size=1, max_size=len(tensors), unique_by=id))
    got = torch.autograd.grad((y * direction).sum(), tensors)
    wanted = torch.autograd.grad((expected * direction).sum(), tensors)
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("needed", [[0], [1], [3]], ids=["x", "first core", "last core"])
def test_gradients_of_single_tensors(plan, beside, needed, either_way):
    tt = small()
    x, weight, _ = inputs(tt, (9,), beside, False)
    frozen = TensorTrain([core.detach() for core in tt.cores], trainable=True, freeze_cores=[0, 1, 2])
    tensors = [x.detach(), *frozen.cores]
    for k in needed:
        tensors[k].requires_grad_()
    weight = None if weight is None else weight.detach()
    got, wanted = (f(tensors[0], weight, None, frozen, *more) for f, more in ((contract, [plan]), (reference, [])))
    found, expected = (torch.autograd.grad(out.square().sum(), tensors[needed[0]])[0] for out in (got, wanted))
    assert torch.allclose(found, expected)


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_many_blocks_of_rows_and_columns(plan, beside):
    """More rows than a block holds, and not a multiple of it; a matrix that is built in several blocks."""
    tt = random_matrix(((8, 10, 14), (9, 12, 12)), 2, trainable=True, dtype=torch.float64)
    x, weight, bias = inputs(tt, (301,), beside, True)
    if plan.kind in ("full", "hybrid"):
        spec = contraction_for(x, tt.cores, False, beside).spec
        assert modes_per_block(spec, plan) < math.prod(spec.outputs[: plan.groups[0]])
    y, expected = contract(x, weight, bias, tt, plan), reference(x, weight, bias, tt)
    direction = torch.randn_like(expected)
    tensors = [x, bias, *tt.parameters()]
    got, wanted = (torch.autograd.grad((out * direction).sum(), tensors) for out in (y, expected))
    assert torch.allclose(y, expected)
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))
