"""The node of the graph: orders of derivatives, transforms, torch.compile, and the tensors it saves."""

import pytest
import torch
from torch.autograd import forward_ad

from t3nsor import Plan, TensorTrain, random_matrix, tt_matmul
from t3nsor.contraction import ops
from tests.t3nsor.contraction.cases import PLANS, contract, inputs, reference, small


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_gradients_of_first_and_second_order_and_forward_mode(plan, beside, either_way):
    tt = small(shape=((2, 2, 2), (2, 3, 2)))
    x, weight, bias = inputs(tt, (2,), beside, True)
    tensors = (x, bias, *tt.parameters()) + ((weight,) if beside else ())

    def function(x, bias, core0, core1, core2, weight=None):
        return contract(x, weight, bias, TensorTrain([core0, core1, core2]), plan)

    assert torch.autograd.gradcheck(function, tensors, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_forward_mode_within_forward_mode(plan):
    """Forward mode does not differentiate the jvp of a torch.autograd.Function: the mixed terms would be 0."""
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


def test_the_result_can_be_modified_in_place(either_way):
    x, weight, bias = inputs(tt := small(), (2, 3), True, True)
    for out in (contract(x, None, bias, tt, "auto"), contract(x, weight, bias, tt, "full")):
        torch.relu_(out).sum().backward()


def test_a_bias_is_not_saved(either_way):
    x, _, bias = inputs(tt := small(), (3,), False, True)
    y = contract(x, None, bias, tt, "auto")
    with torch.no_grad():
        bias += 1
    y.sum().backward()
    assert torch.equal(bias.grad, torch.full_like(bias, 3))


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_forward_mode_works_without_gradients(plan, beside, either_way):
    tt = small()
    x, weight, bias = inputs(tt, (5,), beside, True)
    with torch.no_grad():
        assert torch.allclose(contract(x, weight, bias, tt, plan), reference(x, weight, bias, tt))
        with forward_ad.dual_level():
            along = torch.randn_like(x)
            y = contract(forward_ad.make_dual(x, along), weight, bias, tt, plan)
            tangent = forward_ad.unpack_dual(y).tangent
    assert torch.allclose(tangent, reference(along, weight, None, tt))


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_torch_func_transforms(plan, either_way):
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


def saved_by(function) -> list[torch.Tensor]:
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return saved


@pytest.mark.parametrize("plan", PLANS, ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_only_x_and_the_cores_are_saved(plan, beside):
    tt = small()
    x, weight, _ = inputs(tt, (50,), beside, False)
    saved = saved_by(lambda: contract(x, weight, None, tt, plan, save="least"))
    known = [t.data_ptr() for t in (x, weight, *tt.cores) if t is not None]
    assert sorted(tensor.data_ptr() for tensor in saved) == sorted(known)


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("right_to_left", [False, True])
def test_states_that_are_small_beside_x_are_saved_and_used(beside, right_to_left):
    tt = random_matrix(((6, 4), (3, 5)), 2, trainable=True, dtype=torch.float64)
    x, weight, _ = inputs(tt, (150,), beside, False)  # more than a block of rows
    plan = Plan("chain", (1, 1), right_to_left)
    state = 150 * 2 * (6 * 5 if right_to_left else 4 * 3)
    small_enough = state <= x.numel()
    saved = saved_by(lambda: contract(x, weight, None, tt, plan))
    known = [t.data_ptr() for t in (x, weight, *tt.cores) if t is not None]
    kept = [tensor for tensor in saved if tensor.data_ptr() not in known]
    assert sum(tensor.numel() for tensor in kept) == (state if small_enough else 0)
    y, expected = contract(x, weight, None, tt, plan), reference(x, weight, None, tt)
    found, wanted = (torch.autograd.grad(out.square().sum(), [x, *tt.cores]) for out in (y, expected))
    assert all(torch.allclose(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("strategy", ["auto", "left_to_right", "full", Plan("paired", (2, 1))], ids=str)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_compiled_equals_eager(strategy, beside):
    """One graph, for any number of rows."""
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


def test_what_is_compiled_does_not_depend_on_what_ran_eagerly(monkeypatch):
    """The memo of contractions, which is emptied when it is full, is no part of the graph."""
    tt = small(dtype=torch.float32)

    def product(x):
        return tt_matmul(x, tt)

    product(torch.randn(3, 12))
    compiled, x = torch.compile(product, fullgraph=True, backend="aot_eager"), torch.randn(6, 12)
    first = compiled(x)
    monkeypatch.setattr(ops, "MOST_KNOWN", 1)
    for rows in (4, 5):
        product(torch.randn(rows, 12))
    with torch.compiler.set_stance("fail_on_recompile"):
        assert torch.equal(compiled(x), first)


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
