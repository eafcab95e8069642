"""Half precision and autocast round once."""

import pytest
import torch

from t3nsor import Plan, ShapeError, TensorTrain, TTLinear, linear_with_branch, random_matrix
from t3nsor.contraction.chain import chain_steps
from tests.t3nsor.contraction.cases import PLANS, contract, inputs, reference, small


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_half_precision_is_as_close_as_rounding_allows(plan, beside):
    """Gradients of the cores are summed in float32: over 4,000 rows, sums in bfloat16 are off by several percent."""
    exact = random_matrix(((4, 4, 4), (4, 4, 4)), 2, trainable=True, dtype=torch.float64)
    x, weight, bias = inputs(exact, (4000,), beside, True)
    half = TensorTrain([core.detach().bfloat16() for core in exact.cores], trainable=True)
    x, weight, bias = (None if t is None else t.detach().bfloat16().requires_grad_() for t in (x, weight, bias))
    exact = TensorTrain([core.detach().double() for core in half.cores], trainable=True)
    wide = [None if t is None else t.detach().double().requires_grad_() for t in (x, weight, bias)]
    y, expected = contract(x, weight, bias, half, plan), reference(*wide, exact)
    direction = torch.randn_like(expected).bfloat16()
    got = torch.autograd.grad(y, [x, *half.cores], direction)
    wanted = torch.autograd.grad(expected, [wide[0], *exact.cores], direction.double())
    for a, b in zip([y, *got], [expected, *wanted], strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.double() - b).norm() < 0.01 * b.norm()


@pytest.mark.parametrize("right_to_left", [False, True])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_half_precision_where_matrices_are_larger_than_states(beside, right_to_left):
    exact = random_matrix(((4, 4, 4), (4, 4, 4)), 16, dtype=torch.float64)
    half = TensorTrain([core.bfloat16() for core in exact.cores], trainable=True)
    exact = TensorTrain([core.detach().double() for core in half.cores], trainable=True)
    plan = Plan("chain", (1, 1, 1), right_to_left)
    assert chain_steps([core.shape for core in half.cores], right_to_left, "cpu", 2)[1].by_rows
    x, weight, _ = (None if t is None else t.detach().bfloat16() for t in inputs(exact, (300,), beside, False))
    y = contract(x.requires_grad_(), weight, None, half, plan)
    wide = x.detach().double().requires_grad_(), None if weight is None else weight.double()
    expected, direction = reference(*wide, None, exact), torch.randn_like(y)
    got = torch.autograd.grad(y, [x, *half.cores], direction)
    wanted = torch.autograd.grad(expected, [wide[0], *exact.cores], direction.double())
    for a, b in zip([y, *got], [expected, *wanted], strict=True):
        assert (a.double() - b).norm() < 0.01 * b.norm()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_autocast_rounds_rows_and_factors_once(beside):
    tt = small(dtype=torch.float32)
    x, weight, _ = (None if t is None else t.detach().float() for t in inputs(tt, (40,), beside, False))
    expected = reference(x, weight, None, tt)
    with torch.autocast("cpu", torch.bfloat16):
        y = contract(x, weight, None, tt, "full")
        y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert (y.float() - expected).norm() < 0.005 * expected.norm()
    assert all(core.grad.dtype == torch.float32 and core.grad.any() for core in tt.cores)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", [None, torch.relu])
def test_float32_cores_and_biases_serve_rows_in_half_precision(dtype, activation):
    """Their gradients are float32 too, so that training loses nothing."""
    torch.manual_seed(0)
    layer = TTLinear(64, 64, rank=4, d=3, cores_nonlinearity=activation)
    layer.bias.data.normal_()
    x = torch.randn(50, 64)
    y = layer(x.to(dtype))
    assert y.dtype == dtype
    assert (y - layer(x)).norm() < 0.02 * y.norm()
    y.float().square().sum().backward()
    assert {parameter.grad.dtype for parameter in layer.parameters()} == {torch.float32}
    with pytest.raises(ShapeError, match="all need the same"):
        linear_with_branch(x.to(dtype), torch.ones(64, 64), layer.weight)
