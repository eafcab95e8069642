import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from t3nsor.errors import ShapeError
from t3nsor.initializers import random_matrix, random_tensor, zero_delta
from t3nsor.tensor_train import TensorRing, TensorTrain
from tests.t3nsor.chains import assert_same_gradients, chains, random_chain

OPERATIONS = {
    "add": (lambda a, b: a + b, lambda a, b: a + b),
    "subtract": (lambda a, b: a - b, lambda a, b: a - b),
    "negate": (lambda a, b: -a + b * 0, lambda a, b: -a + b * 0),
    "hadamard": (lambda a, b: a * b, lambda a, b: a * b),
    "scale": (lambda a, b: 2.5 * a + b * torch.tensor(-3), lambda a, b: 2.5 * a - 3 * b),
    "dot": (lambda a, b: a.dot(b), lambda a, b: (a * b).sum()),
    "norm": (lambda a, b: a.norm() * b.norm(), lambda a, b: a.norm() * b.norm()),
}


@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=20, deadline=None)
@given(pair=chains(count=2))
def test_operations_equal_the_dense_ones(name, pair):
    on_chains, on_dense = OPERATIONS[name]
    for chain in pair:
        for core in chain.cores:
            core.requires_grad_()
    result, expected = on_chains(*pair), on_dense(*(chain.full() for chain in pair))
    if isinstance(result, (TensorTrain, TensorRing)):
        assert type(result) is type(pair[0])
        assert not result.trainable
        result = result.full()
    assert_same_gradients(result, expected, *pair)


def test_ranks_add_up_and_multiply():
    a, b = (random_chain([(2, 2)] * 3, ranks, closed=False) for ranks in ((1, 2, 3, 1), (1, 4, 2, 1)))
    assert (a + b).ranks == (1, 6, 5, 1)
    assert a.hadamard(b).ranks == (1, 8, 6, 1)
    rings = [random_chain([(2,)] * 2, ranks, closed=True) for ranks in ((2, 3, 2), (3, 1, 3))]
    assert (rings[0] + rings[1]).ranks == (5, 4, 5)


def test_norm_of_a_train_survives_cancellation():
    chain = random_matrix(((4, 4, 4), (4, 4, 4)), 3, dtype=torch.float64)
    difference = chain - chain * (1 + 1e-12)
    assert difference.norm().item() == pytest.approx(1e-12 * chain.norm().item(), rel=1e-3)


@pytest.mark.parametrize("closed", [False, True])
def test_norm_has_two_derivatives_and_finite_gradients_at_zero(closed):
    chain = random_chain([(2,), (2,), (2,)], (2, 2, 2, 2) if closed else (1, 2, 2, 1), closed)

    def norm(*cores):
        return type(chain)(cores).norm()

    cores = [core.requires_grad_() for core in chain.cores]
    assert torch.autograd.gradcheck(norm, cores)
    assert torch.autograd.gradgradcheck(norm, cores)
    zero = zero_delta(((2, 2), (2, 2)), 2, ring=closed, trainable=True)
    zero.norm().backward()
    assert all(core.grad.isfinite().all() for core in zero.cores)


@settings(max_examples=60, deadline=None)
@given(chains(count=2), st.sampled_from([0.0, 1e-3, 0.1, 0.5, 2.0]))
def test_rounding_honours_the_error_bound(pair, eps):
    chain = pair[0] + pair[1] * 0.2
    rounded = chain.round(eps=eps)
    assert rounded.raw_shape == chain.raw_shape
    assert (rounded.full() - chain.full()).norm() <= (eps + 1e-7) * chain.full().norm()
    assert all(r <= before for r, before in zip(rounded.ranks, chain.ranks, strict=True))


@settings(max_examples=40, deadline=None)
@given(chains(closed=False))
def test_rounding_finds_the_ranks_of_the_unfoldings_of_a_train(chain):
    """The same ranks as TT-SVD finds in the sum of a train with itself."""
    modes = [n * (chain.raw_shape[1][k] if chain.is_matrix else 1) for k, n in enumerate(chain.raw_shape[0])]
    dense = TensorTrain([core.flatten(1, -2) for core in chain.cores]).full()
    unfoldings = [dense.reshape(math.prod(modes[:k]), -1) for k in range(1, chain.d)]
    ranks = [int(torch.linalg.matrix_rank(unfolding)) for unfolding in unfoldings]
    assert (chain + chain).round(eps=1e-9).ranks == (1, *ranks, 1)
    assert (chain + chain).round(eps=0).ranks == (1, *ranks, 1)


@settings(max_examples=30, deadline=None)
@given(chains(), st.integers(1, 3))
def test_rounding_honours_the_rank_bound(chain, rank):
    big = chain + chain.hadamard(chain)
    assert max(big.round(rank=rank).ranks) <= rank
    bounds = [1 + k % 2 for k in range(chain.d if chain.closed else chain.d - 1)]
    bounded = big.round(rank=bounds).ranks
    assert all(r <= bound for r, bound in zip(bounded if chain.closed else bounded[1:], bounds, strict=False))


def test_rounding_to_a_rank_is_the_truncated_svd_for_two_cores():
    chain = random_matrix(((3, 4), (4, 5)), 9, dtype=torch.float64)
    unfolding = chain.full().reshape(3, 4, 4, 5).permute(0, 2, 1, 3).reshape(12, 20)
    best = torch.linalg.svdvals(unfolding)[2:].norm()
    assert (chain.round(rank=2).full() - chain.full()).norm().item() == pytest.approx(best.item())


def test_a_ring_with_spare_channels_loses_them_at_every_bond():
    ring = random_chain([(6, 6)] * 3, (2, 2, 2, 2), closed=True)
    padded = TensorRing([torch.nn.functional.pad(core, (0, 3, 0, 0, 0, 0, 0, 3)) for core in ring.cores])
    assert padded.ranks == (5, 5, 5, 5)
    assert padded.round(eps=0).ranks == (2, 2, 2, 2)
    assert torch.allclose(padded.round(eps=0).full(), ring.full())
    assert TensorRing([torch.ones(3, 2, 3)]).round(rank=1).ranks == (1, 1)


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("how", [{"eps": 0.0}, {"rank": 2}])
def test_gradient_of_rounding(closed, how):
    """Lossless (where an ordinary SVD has no gradient) and lossy."""
    chain = random_chain([(2, 2)] * 3, (2, 2, 2, 2) if closed else (1, 3, 3, 1), closed)

    def rounded(*cores):
        value = type(chain)(cores)
        return (value + value * 0.5 if closed else value).round(**how).full()

    assert torch.autograd.gradcheck(rounded, [core.requires_grad_() for core in chain.cores])


def test_half_precision_is_rounded_in_single():
    chain = random_matrix(((4, 4), (4, 4)), 4, dtype=torch.bfloat16)
    rounded = chain.round(rank=16)
    assert rounded.dtype == chain.norm().dtype == chain.dot(chain).dtype == torch.bfloat16
    assert torch.allclose(rounded.full(), chain.full(), atol=0.1)


def test_autocast_leaves_arithmetic_alone():
    chain = random_matrix(((4, 4, 4), (4, 4, 4)), 4)
    with torch.autocast("cpu", torch.bfloat16):
        results = [chain.full(), chain.dot(chain), (chain * chain).full(), chain.round(eps=0.1).full(), chain.norm()]
    expected = [chain.full(), chain.dot(chain), (chain * chain).full(), chain.round(eps=0.1).full(), chain.norm()]
    assert all(torch.equal(a, b) for a, b in zip(results, expected, strict=True))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("eps", [1e-10, 0.2, 0.4])
def test_rounding_matches_torchtt(eps):
    torchtt = pytest.importorskip("torchtt")
    chain = random_tensor((4, 5, 6, 3), 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = torchtt.TT(list((chain + chain).cores)).round(eps)
    ours = (chain + chain).round(eps)
    if eps < 1e-6:
        assert ours.ranks == tuple(theirs.R)
        assert torch.allclose(ours.full(), theirs.full())
    # torchtt truncates in the other direction, so the error budget is spent on other bonds.
    assert all(abs(a - b) <= 1 for a, b in zip(ours.ranks, theirs.R, strict=True))
    for found in (ours, theirs):
        assert (found.full() - 2 * chain.full()).norm() <= (eps + 1e-9) * 2 * chain.norm()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: a + random_tensor((2, 3), 2), "+: both sides need the same kind, shape, dtype and device"),
        (lambda a: a - random_tensor((3, 2), 2), "TensorTrain(2x2, "),
        (lambda a: a.dot(random_tensor((2, 2), 2, dtype=torch.float64)), "torch.float32, cpu and TensorTrain"),
        (lambda a: a * random_tensor((2, 2), 2, device="meta"), "torch.float32, meta"),
        (lambda a: a + random_tensor((2, 2), 2, ring=True), "TensorRing(2x2"),
        (lambda a: a.dot(torch.ones(2, 2)), "both sides must be trains or rings"),
        (lambda a: a.round(), "round needs eps, rank or both"),
        (lambda a: a.round(eps=-1.0), "eps is -1.0; it must be at least 0"),
        (lambda a: a.round(eps=math.nan), "eps is nan"),
        (lambda a: a.round(rank=0), "rank is 0"),
        (lambda a: a.round(rank=[2, 2]), "gives 2 inner ranks; 2 cores have 1"),
    ],
)
def test_errors_state_both_sides(call, words):
    with pytest.raises(ShapeError) as error:
        call(random_tensor((2, 2), 2))
    assert words in str(error.value)


@pytest.mark.parametrize("other", [1, "a", torch.ones(2, 2), [1.0]])
def test_only_chains_are_added(other):
    chain = random_tensor((2, 2), 2)
    with pytest.raises(TypeError):
        chain + other
    if not isinstance(other, int):
        with pytest.raises(TypeError):
            chain * other
