import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3nsor.decompositions import to_tr_matrix, to_tr_tensor, to_tt_matrix, to_tt_tensor
from t3nsor.errors import ShapeError
from t3nsor.initializers import random_matrix, random_tensor
from tests.t3nsor.chains import chains

EPSILONS = [0.0, 1e-3, 0.1, 0.5, 0.9]


def normal(*sizes, seed: int = 0):
    return torch.randn(sizes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(chains(), st.sampled_from(EPSILONS), st.booleans())
def test_the_error_bound_is_honoured(chain, epsilon, ring):
    dense = chain.full()
    if chain.is_matrix:
        found = (to_tr_matrix if ring else to_tt_matrix)(dense, chain.raw_shape, epsilon=epsilon)
    else:
        found = (to_tr_tensor if ring else to_tt_tensor)(dense, epsilon=epsilon)
    assert found.closed == ring
    assert found.raw_shape == chain.raw_shape
    assert (found.full() - dense).norm() <= (epsilon + 1e-9) * dense.norm()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4), st.sampled_from(EPSILONS), st.booleans(), st.integers(0, 99)
)
def test_the_error_bound_is_honoured_for_tensors_of_full_rank(sizes, epsilon, ring, seed):
    dense = normal(*sizes, seed=seed)
    found = (to_tr_tensor if ring else to_tt_tensor)(dense, epsilon=epsilon)
    assert (found.full() - dense).norm() <= (epsilon + 1e-9) * dense.norm()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_tt_svd_finds_the_ranks_of_a_matrix_of_low_rank(dtype):
    chain = random_matrix(((4, 4, 6), (3, 4, 4)), 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    found = to_tt_matrix(chain.full(), chain.raw_shape)
    assert found.ranks == (1, 3, 3, 1)
    assert torch.allclose(found.full(), chain.full(), atol=1e-5)
    assert to_tt_tensor(torch.zeros(3, 4, 5, dtype=dtype)).ranks == (1, 1, 1, 1)


def test_tt_svd_with_a_rank_bound_is_the_truncated_svd_for_two_cores():
    matrix = normal(12, 20)
    found = to_tt_matrix(matrix, ((3, 4), (4, 5)), max_rank=2)
    unfolded = matrix.reshape(3, 4, 4, 5).permute(0, 2, 1, 3).reshape(12, 20)
    best = torch.linalg.svdvals(unfolded)[2:].norm()
    assert (found.full() - matrix).norm().item() == pytest.approx(best.item())


def test_tr_svd_splits_the_first_rank():
    assert to_tr_tensor(normal(6, 5, 4)).ranks == (2, 3, 8, 2)
    assert to_tr_tensor(normal(7, 5, 4)).ranks == (2, 4, 8, 2), "7 is padded to 2 * 4"
    assert to_tr_tensor(normal(9, 9)).ranks == (3, 3, 3)
    assert to_tr_tensor(normal(9, 9), max_rank=[2, 4]).ranks == (2, 4, 2)
    assert to_tr_tensor(normal(9, 9), max_rank=[9, 1]).ranks == (9, 1, 9)
    assert to_tr_tensor(normal(9, 9), max_rank=[1, 5]).ranks == (1, 5, 1)
    assert to_tr_tensor(normal(5)).ranks == (1, 1)
    assert to_tr_tensor(torch.zeros(3, 4)).ranks == (1, 1, 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data(), st.booleans())
def test_rank_bounds_are_honoured(sizes, data, ring):
    count = len(sizes) if ring else len(sizes) - 1
    bounds = data.draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    found = (to_tr_tensor if ring else to_tt_tensor)(normal(*sizes), max_rank=bounds)
    ranks = found.ranks[:-1] if ring else found.ranks[1:-1]
    assert all(r <= bound for r, bound in zip(ranks, bounds, strict=True))
    assert max((to_tr_tensor if ring else to_tt_tensor)(normal(*sizes), max_rank=2).ranks) <= 2


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_trains_match_tensorly(rank):
    decomposition = pytest.importorskip("tensorly.decomposition")
    dense = normal(4, 5, 3, 6)
    theirs = decomposition.tensor_train(dense.numpy(), rank=[1, rank, rank, rank, 1]).to_tensor()
    assert torch.allclose(to_tt_tensor(dense, rank).full(), torch.from_numpy(theirs))


@pytest.mark.parametrize("ranks", [[2, 2, 3, 2], [1, 3, 4, 2], [2, 3, 2, 4]])
def test_rings_match_tensorly(ranks):
    decomposition = pytest.importorskip("tensorly.decomposition")
    dense = normal(7, 5, 3, 6)
    theirs = torch.from_numpy(decomposition.tensor_ring(dense.numpy(), rank=[*ranks, ranks[0]]).to_tensor())
    ours = to_tr_tensor(dense, ranks)
    assert ours.ranks == (*ranks, ranks[0])
    # The columns that are split into two ranks may come in any order, so later truncations can differ.
    assert (ours.full() - dense).norm().item() == pytest.approx((theirs - dense).norm().item(), rel=0.05)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("epsilon", [1e-10, 0.3, 0.6])
def test_trains_match_torchtt(epsilon):
    torchtt = pytest.importorskip("torchtt")
    dense = random_tensor((4, 5, 6, 3), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).full()
    theirs = torchtt.TT(dense, eps=epsilon)
    ours = to_tt_tensor(dense, epsilon=epsilon)
    assert ours.ranks == tuple(theirs.R)
    assert torch.allclose(ours.full(), theirs.full())


@pytest.mark.parametrize(("ring", "rank", "max_rank"), [(False, 1, 1), (False, 9, 2), (True, 1, 1), (True, 9, None)])
def test_gradient_of_a_decomposition(ring, rank, max_rank):
    """Also where all dropped singular values are zero: an ordinary SVD has no gradient there."""
    dense = random_tensor((3, 4, 3), rank, dtype=torch.float64).full().requires_grad_()
    decompose = to_tr_tensor if ring else to_tt_tensor
    assert torch.autograd.gradcheck(lambda x: decompose(x, max_rank).full(), dense)
    zero = torch.zeros(3, 4, 3, requires_grad=True)
    decompose(zero, max_rank).full().sum().backward()
    assert zero.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_decomposed_in_single(dtype):
    matrix = normal(16, 12).to(dtype)
    found = to_tt_matrix(matrix, ((4, 4), (3, 4)))
    assert found.dtype == dtype
    assert torch.allclose(found.full().float(), matrix.float(), atol=0.1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: to_tt_matrix(torch.full((2, 2), math.nan), ((2,), (2,))), "(2, 2) holds NaN"),
        (lambda: to_tt_matrix(torch.full((4, 2), math.inf), ((2, 2), (2, 1))), "holds NaN or infinity"),
        (lambda: to_tr_tensor(torch.full((2, 2), -math.inf)), "holds NaN or infinity"),
        (lambda: to_tt_matrix(torch.ones(2, 2, 2), ((2,), (2,))), "shape (2, 2, 2)"),
        (lambda: to_tr_matrix([[1.0]], ((1,), (1,))), "[[1.0]]; it must have two dimensions"),
        (lambda: to_tt_matrix(torch.ones(2, 2), ((2,), (3,))), "multiply to 3"),
        (lambda: to_tt_matrix(torch.ones(2, 2), ((2,), (2,)), epsilon=-1), "epsilon is -1"),
        (lambda: to_tt_tensor(torch.ones(2, 2), epsilon=math.nan), "epsilon is nan"),
        (lambda: to_tt_tensor(torch.ones(2, 2, dtype=torch.long)), "the entries are torch.int64"),
        (lambda: to_tt_tensor(torch.tensor(1.0)), "got ()"),
        (lambda: to_tt_tensor(torch.ones(3, 0)), "got (3, 0)"),
        (lambda: to_tt_tensor(torch.ones(2, 2), max_rank=0), "rank is 0"),
        (lambda: to_tr_tensor(torch.ones(2, 2), max_rank=[1]), "gives 1 ranks; 2 cores have 2"),
        (lambda: to_tt_tensor(torch.ones(2, 2), max_rank=1.5), "rank is 1.5"),
    ],
)
def test_errors_state_the_shapes(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
