"""Every plan against the dense matrix, in values and gradients, alone and beside a dense weight."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad
from torch.nn import functional

from t3nsor import TensorTrain, linear_with_branch, random_matrix, tt_matmul
from t3nsor.contraction.chain import chain_steps, is_one_gemm
from t3nsor.contraction.cost_model import is_built_at_once
from t3nsor.contraction.engine import contraction_for
from t3nsor.contraction.plans import STRATEGIES, Plan, candidates


@st.composite
def chains(draw, largest_d=4):
    d, ring = draw(st.integers(1, largest_d)), draw(st.booleans())
    shape = [[draw(st.integers(1, 4)) for _ in range(d)] for _ in range(2)]
    ranks = [draw(st.integers(1, 3)) for _ in range(d if ring else d - 1)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return random_matrix(shape, ranks, ring=ring, trainable=True, dtype=torch.float64, generator=generator)


def inputs(tt, leading, beside, biased):
    """x, weight and bias, the last two None where there are none; all need gradients."""
    in_features, out_features = tt.shape
    x = torch.randn(*leading, in_features, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(out_features, in_features, dtype=torch.float64, requires_grad=True) if beside else None
    bias = torch.randn(out_features, dtype=torch.float64, requires_grad=True) if biased else None
    return x, weight, bias


def contract(x, weight, bias, tt, strategy):
    if weight is None:
        return tt_matmul(x, tt, strategy, bias=bias)
    return linear_with_branch(x, weight, tt, scale=0.7, bias=bias, strategy=strategy)


def reference(x, weight, bias, tt):
    dense = tt.full().T if weight is None else weight + 0.7 * tt.full().T
    return functional.linear(x, dense, bias)


def plans_of(x, tt, beside):
    """Every plan of the backward pass; those of the forward pass are among them."""
    return candidates(contraction_for(x, tt.cores, tt.closed, beside).spec, "auto", backward=True)


@settings(max_examples=100, deadline=None)
@given(chains(), st.data(), st.lists(st.integers(0, 3), max_size=3), st.booleans(), st.booleans())
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


def small(ring=False, dtype=torch.float64, seed=0, rank=2):
    generator = torch.Generator().manual_seed(seed)
    shape = ((3, 2, 2), (2, 4, 3))
    return random_matrix(shape, rank, ring=ring, trainable=True, dtype=dtype, generator=generator)


KINDS = [
    Plan("chain", (1, 1, 1)),
    Plan("chain", (1, 1, 1), True),
    Plan("chain", (1, 2), True),
    Plan("full", (2, 1)),
    Plan("paired", (1, 2)),
    Plan("paired", (2, 1), True),
    Plan("hybrid", (1, 2)),
    Plan("hybrid", (2, 1), True),
]


@pytest.mark.parametrize("plan", KINDS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_gradients_of_first_and_second_order_and_forward_mode(plan, beside):
    tt = small()
    x, weight, bias = inputs(tt, (3,), beside, True)
    tensors = (x, bias, *tt.parameters()) + ((weight,) if beside else ())

    def function(x, bias, core0, core1, core2, weight=None):
        return contract(x, weight, bias, TensorTrain([core0, core1, core2]), plan)

    assert torch.autograd.gradcheck(function, tensors, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("plan", KINDS, ids=str)
def test_forward_mode_within_forward_mode(plan):
    """torch does not differentiate the jvp of a torch.autograd.Function in forward mode: the mixed terms would be 0."""
    cores = tuple(core.detach() for core in small().cores)
    x = torch.randn(3, 12, dtype=torch.float64)

    def second(product):
        def function(x, *cores):
            return product(torch.tanh(x), *cores).square()

        along = torch.ones_like(x), *map(torch.ones_like, cores)
        first = lambda *at: torch.func.jvp(function, at, along)[1]  # noqa: E731
        return torch.func.jvp(first, (x, *cores), along)[1]

    found = second(lambda x, *cores: tt_matmul(x, TensorTrain(cores), plan))
    assert torch.allclose(found, second(lambda x, *cores: x @ TensorTrain(cores).full()))


def test_what_comes_out_can_be_written_into():
    x, weight, bias = inputs(tt := small(), (2, 3), True, True)
    for out in (contract(x, None, bias, tt, "auto"), contract(x, weight, bias, tt, "full")):
        torch.relu_(out).sum().backward()


def test_a_bias_is_not_saved():
    x, _, bias = inputs(tt := small(), (3,), False, True)
    y = contract(x, None, bias, tt, "auto")
    with torch.no_grad():
        bias += 1
    y.sum().backward()
    assert torch.equal(bias.grad, torch.full_like(bias, 3))


@pytest.mark.parametrize("plan", KINDS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_without_gradients_there_is_no_node_but_forward_mode_goes_on(plan, beside):
    tt = small()
    x, weight, bias = inputs(tt, (5,), beside, True)
    with torch.no_grad():
        assert torch.allclose(contract(x, weight, bias, tt, plan), reference(x, weight, bias, tt))
        with forward_ad.dual_level():
            along = torch.randn_like(x)
            y = contract(forward_ad.make_dual(x, along), weight, bias, tt, plan)
            tangent = forward_ad.unpack_dual(y).tangent
    assert torch.allclose(tangent, reference(along, weight, None, tt))


@pytest.mark.parametrize("plan", KINDS, ids=str)
def test_transforms_of_torch_func(plan):
    tt = small()
    cores = tuple(core.detach() for core in tt.cores)
    x = torch.randn(5, 3, 12, dtype=torch.float64)

    def loss(x, *cores):
        return tt_matmul(x, TensorTrain(cores), plan).square().sum()

    each = torch.func.vmap(lambda rows: tt_matmul(rows, tt, plan), in_dims=1, out_dims=1)(x)
    assert torch.allclose(each, x @ tt.full())
    per_row = torch.func.vmap(torch.func.grad(loss, argnums=(0, 1, 3)), in_dims=(0, None, None, None))(x, *cores)
    for k in range(len(x)):
        single = torch.func.grad(loss, argnums=(0, 1, 3))(x[k], *cores)
        assert all(torch.allclose(a[k], b) for a, b in zip(per_row, single, strict=True))
    stacked = tuple(torch.stack([core, 2 * core]) for core in cores)
    both = torch.func.vmap(lambda *cores: tt_matmul(x, TensorTrain(cores), plan))(*stacked)
    assert torch.allclose(both, torch.stack([x @ tt.full(), 8 * (x @ tt.full())]))


@pytest.mark.parametrize("plan", KINDS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("needed", [[0], [1], [3]], ids=["x", "first core", "last core"])
def test_gradients_of_single_tensors(plan, beside, needed):
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


@pytest.mark.parametrize("plan", KINDS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_many_blocks_of_rows_and_columns(plan, beside):
    """More rows than a block holds, and not a multiple; a matrix that is built in several pieces."""
    tt = random_matrix(((8, 10, 14), (9, 12, 12)), 2, trainable=True, dtype=torch.float64)
    x, weight, bias = inputs(tt, (301,), beside, True)
    assert beside or not is_built_at_once(contraction_for(x, tt.cores, False, beside).spec)
    y, expected = contract(x, weight, bias, tt, plan), reference(x, weight, bias, tt)
    direction = torch.randn_like(expected)
    tensors = [x, bias, *tt.parameters()]
    got, wanted = (torch.autograd.grad((out * direction).sum(), tensors) for out in (y, expected))
    assert torch.allclose(y, expected)
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("plan", KINDS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_only_x_and_the_cores_are_saved(plan, beside):
    tt = small()
    x, weight, _ = inputs(tt, (50,), beside, False)
    saved = []

    def pack(tensor):
        saved.append(tensor.data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        contract(x, weight, None, tt, plan)
    known = [t.data_ptr() for t in (x, weight, *tt.cores) if t is not None]
    assert sorted(saved) == sorted(known)


@pytest.mark.parametrize("plan", KINDS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_half_precision_is_as_near_as_rounding_allows(plan, beside):
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
def test_half_precision_at_a_rank_whose_matrices_are_larger_than_the_states(beside, right_to_left):
    exact = random_matrix(((4, 4, 4), (4, 4, 4)), 16, dtype=torch.float64)
    half = TensorTrain([core.bfloat16() for core in exact.cores], trainable=True)
    exact = TensorTrain([core.detach().double() for core in half.cores], trainable=True)
    plan = Plan("chain", (1, 1, 1), right_to_left)
    assert any(is_one_gemm(s, 2) for s in chain_steps([core.shape for core in half.cores], right_to_left)[1:-1])
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


@pytest.mark.parametrize("strategy", ["auto", "left_to_right", "full", Plan("paired", (2, 1))], ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_compiled_equals_eager(strategy, beside):
    """In one graph, for any number of rows, and like the eager layer it saves x and the cores only."""
    tt = small(dtype=torch.float32)
    compiled = torch.compile(contract, fullgraph=True, dynamic=True, backend="aot_eager")
    for rows in (6, 9):
        x, weight, bias = (None if t is None else t.detach().float() for t in inputs(tt, (rows,), beside, True))
        x.requires_grad_()
        y, expected = compiled(x, weight, bias, tt, strategy), reference(x, weight, bias, tt)
        assert torch.allclose(y, expected, atol=1e-5)
        tensors = [x, *tt.parameters()]
        got, wanted = (torch.autograd.grad(out.square().sum(), tensors) for out in (y, expected))
        assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(got, wanted, strict=True))


def test_compiled_gradients_of_operands_in_any_layout():
    tt = small(dtype=torch.float32)
    x, weight, _ = (None if t is None else t.detach().float().requires_grad_() for t in inputs(tt, (8,), True, False))

    def loss(x, weight):
        turned = x.view(4, 2, 12).transpose(0, 1)
        return contract(turned, weight.t().contiguous().t(), None, tt, "auto").square().sum()

    found, wanted = (
        torch.autograd.grad(f(x, weight), [x, weight]) for f in (torch.compile(loss, backend="aot_eager"), loss)
    )
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found, wanted, strict=True))
