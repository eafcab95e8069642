import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3nsor import (
    ShapeError,
    TensorTrain,
    TTLinear,
    glorot_initializer,
    matrix_with_random_cores,
    random_matrix,
    to_tt_matrix,
    tt_matmul,
)


def dense_by_entries(tt: TensorTrain) -> torch.Tensor:
    """Every entry of a TT-matrix as the product of its core slices, one by one."""
    rows, columns = tt.raw_shape
    dense = torch.empty(tt.shape, dtype=tt.cores[0].dtype)
    for i, row in enumerate(itertools.product(*map(range, rows))):
        for j, column in enumerate(itertools.product(*map(range, columns))):
            product = torch.eye(1, dtype=dense.dtype)
            for core, n, m in zip(tt.cores, row, column, strict=True):
                product = product @ core[:, n, m, :]
            dense[i, j] = product.item()
    return dense


@st.composite
def matrices(draw):
    d = draw(st.integers(1, 4))
    rows, columns = ([draw(st.integers(1, 3)) for _ in range(d)] for _ in range(2))
    ranks = [draw(st.integers(1, 4)) for _ in range(d - 1)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    return matrix_with_random_cores((rows, columns), ranks, dtype=torch.float64, generator=generator)


@settings(max_examples=40, deadline=None)
@given(matrices())
def test_full_is_the_product_of_core_slices(tt):
    assert torch.allclose(tt.full(), dense_by_entries(tt))
    assert tt.numel() == sum(core.numel() for core in tt.cores)


@settings(max_examples=60, deadline=None)
@given(matrices(), st.sampled_from(["auto", "left_to_right", "full"]), st.lists(st.integers(0, 3), max_size=3))
def test_every_plan_equals_the_dense_matrix_in_value_and_gradient(tt, strategy, leading):
    for core in tt.cores:
        core.requires_grad_()
    x = torch.randn(*leading, tt.shape[0], dtype=torch.float64, requires_grad=True)
    y = tt_matmul(x, tt, strategy)
    expected = x @ tt.full()
    weight = torch.randn_like(expected)
    assert y.shape == (*leading, tt.shape[1])
    assert torch.allclose(y, expected)
    got = torch.autograd.grad((y * weight).sum(), [x, *tt.cores])
    wanted = torch.autograd.grad((expected * weight).sum(), [x, *tt.cores])
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))


def test_layer_equals_linear_and_its_bias():
    layer = TTLinear(24, 18, rank=3).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    dense = torch.nn.functional.linear(x, layer.weight_tt.full().T, layer.bias)
    assert torch.allclose(layer(x), dense)
    assert list(layer.state_dict()) == ["bias", "cores.0", "cores.1", "cores.2"]


def test_zero_start_is_zero_and_can_be_left():
    layer = TTLinear(24, 18, rank=3, init="zero")
    x = torch.randn(4, 24)
    assert not layer(x).any()
    layer(x).square().sum().backward()
    (layer(x) - 1).square().sum().backward()
    assert layer.cores[-1].grad.any()


@pytest.mark.parametrize(
    ("shape", "rank"), [(((8, 8, 12), (4, 6, 8)), 8), (((16, 16), (32, 8)), 3), (((64,), (64,)), 1)]
)
def test_random_matrix_has_the_variance_asked_for(shape, rank):
    """Over many draws: entries of one draw are far from independent."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.stack([random_matrix(shape, rank, 0.5, generator=generator).full().flatten() for _ in range(60)])
    assert draws.std().item() == pytest.approx(0.5, rel=0.1)
    rows, columns = (math.prod(side) for side in shape)
    glorot = torch.stack([glorot_initializer(shape, rank, generator=generator).full() for _ in range(60)])
    assert glorot.var().item() == pytest.approx(2 / (rows + columns), rel=0.2)


def test_autocast_rounds_the_weight_once():
    layer, x = TTLinear(64, 64, rank=8), torch.randn(32, 64)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        once_rounded = x @ layer.weight_tt.full()
    assert torch.allclose(y.float(), once_rounded.float() + layer.bias, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(matrices(), st.sampled_from([0.0, 0.1, 0.5]))
def test_tt_svd_keeps_its_error_bound(tt, epsilon):
    matrix = tt.full()
    found = to_tt_matrix(matrix, tt.raw_shape, epsilon=epsilon)
    assert (found.full() - matrix).norm() <= (epsilon + 1e-9) * matrix.norm()
    assert found.raw_shape == tt.raw_shape


def test_tt_svd_recovers_a_matrix_of_low_rank():
    tt = random_matrix(((4, 4, 6), (3, 4, 4)), 3, dtype=torch.float64)
    found = to_tt_matrix(tt.full(), tt.raw_shape, max_rank=3)
    assert found.ranks == (1, 3, 3, 1)
    assert torch.allclose(found.full(), tt.full())


def test_tt_svd_with_a_rank_bound_is_the_truncated_svd_for_two_cores():
    matrix = torch.randn(12, 20, dtype=torch.float64)
    found = to_tt_matrix(matrix, ((3, 4), (4, 5)), max_rank=2)
    unfolded = matrix.reshape(3, 4, 4, 5).permute(0, 2, 1, 3).reshape(12, 20)
    best = torch.linalg.svdvals(unfolded)[2:].norm()
    assert (found.full() - matrix).norm() == pytest.approx(best.item())


def test_repr_states_shapes_ranks_and_compression():
    assert repr(random_matrix(((8, 8, 12), (2, 3, 4)), 4)) == (
        "TensorTrain(8x8x12 -> 2x3x4, ranks=(1, 4, 4, 1), 640 parameters for 18432 entries, compression 28.8x)"
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TensorTrain([]), "at least one core"),
        (lambda: TensorTrain([torch.ones(1, 2, 1), torch.ones(1, 2, 2, 1)]), "all need 3 dimensions"),
        (lambda: TensorTrain([torch.ones(2, 2, 2, 2)]), "the first and the last rank must be 1"),
        (lambda: TensorTrain([torch.ones(1, 2, 2, 3), torch.ones(2, 2, 2, 1)]), "with which the next begins"),
        (lambda: to_tt_matrix(torch.full((2, 2), math.nan), ((2,), (2,))), "holds NaN"),
        (lambda: to_tt_matrix(torch.ones(2, 2, 2), ((2,), (2,))), "shape (2, 2, 2)"),
        (lambda: to_tt_matrix(torch.ones(2, 2), ((2,), (3,))), "multiply to 3"),
        (lambda: to_tt_matrix(torch.ones(2, 2), ((2,), (2,)), epsilon=-1), "epsilon is -1"),
        (lambda: tt_matmul(torch.ones(3, 5), random_matrix(((2, 2), (2, 2)))), "last dimension must be 4"),
        (lambda: tt_matmul(torch.ones(3, 4), random_matrix(((2, 2), (2, 2))), "best"), "strategy is 'best'"),
    ],
)
def test_errors_state_the_shapes(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
