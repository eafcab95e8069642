"""Comparisons with a known answer."""

import pytest
import torch

from expressivity import ArchitectureComparator

LINEAR = {
    "width": 8,
    "bias": False,
    "lr": 0.1,
    "epoch": 100,
    "batch_size": 256,
    "mini_batch_size": 32,
    "grad_clamp": None,
}


def errors(result, family):
    return result.sizes[0].fresh[family].amin(1)


def winners(result):
    return [estimate.winner for statistic in ("min", "mean") for estimate in result.estimates(statistic)]


def test_a_family_against_itself_is_undecided(space):
    """With a base both have the same initialisations; without one each imitates members of the other."""
    nets = space("low_rank", rank=2, depth=2, activation="tanh")
    base = space(depth=2, activation="tanh")
    assert winners(ArchitectureComparator(nets, nets, base).compare(40, 2, progress=False)) == ["undecided"] * 2
    assert winners(ArchitectureComparator(nets, nets).compare(40, 2, progress=False)) == ["undecided"] * 2


@pytest.mark.parametrize("seed", range(3))
def test_a_family_against_itself_under_other_draws_is_undecided(space, seed):
    """The same distribution drawn by another class in another order, so that only distributions are equal."""
    from expressivity import ArchitecturalSpace
    from expressivity.networks import DeepNetwork

    class Other(DeepNetwork):
        def __init__(self, **keywords):
            torch.rand(1)
            super().__init__(**keywords)

    first = space("low_rank", rank=2, depth=2)
    options = {"lr": 0.02, "epoch": 2, "batch_size": 32, "automatic_measurement_mode": "parameters"}
    other = ArchitecturalSpace(4, "other", Other, first.parameters, **options)
    result = ArchitectureComparator(first, other).compare(96, 2, seed=seed, progress=False)
    assert not torch.equal(result.sizes[0].fresh["A"], result.sizes[0].fresh["B"])
    assert winners(result) == ["undecided"] * 2


def test_rank_one_never_beats_rank_four_on_targets_of_rank_four(space, double):
    rank4, rank1 = space("low_rank", rank=4, **LINEAR), space("low_rank", rank=1, **LINEAR)
    result = ArchitectureComparator(rank1, rank4, rank4).compare(32, 3, progress=False)
    assert (errors(result, "A") > errors(result, "B")).all()
    assert (errors(result, "B") < 1e-8).all()
    assert winners(result) == ["B", "B"]


@pytest.mark.parametrize("rank", [1, 4])
def test_a_full_layer_fits_low_ranks(space, double, rank):
    low_rank, full = space("low_rank", rank=rank, **LINEAR), space("full", **LINEAR)
    result = ArchitectureComparator(full, low_rank, low_rank).compare(8, 1, progress=False)
    assert (errors(result, "A") < 1e-8).all()


def test_a_low_rank_layer_comes_as_near_as_the_singular_values_allow(space, double):
    """Eckart and Young: for white inputs the error is the sum of squared singular values beyond the rank."""
    rank2 = space("low_rank", rank=2, **{**LINEAR, "batch_size": 2000, "epoch": 30})
    base = space("full", **{**LINEAR, "batch_size": 2000})
    comparator = ArchitectureComparator(rank2, rank2, base)
    result = comparator.compare(6, 3, evaluation_rows=4000, progress=False)
    contest = comparator.contest(0, {"seed": 0, "sub_iterations": 3, "evaluation_rows": 4000}, None, True)
    targets = contest.sources["A"].draw(range(6))
    for error, x, y in zip(errors(result, "A"), targets.fresh_x, targets.fresh_y, strict=True):
        squares = torch.linalg.svdvals(torch.linalg.lstsq(x.double(), y).solution).square()
        assert error.item() == pytest.approx((squares[2:].sum() / squares.sum()).item(), rel=0.1)


@pytest.mark.slow
def test_wider_beats_narrower(space):
    narrow, wide = (space("low_rank", width=6, depth=2, rank=r, epoch=20, lr="auto") for r in (1, 3))
    base = space(width=6, depth=2, batch_size=256)
    assert winners(ArchitectureComparator(narrow, wide, base).compare(64, 3, progress=False)) == ["B", "B"]
    assert winners(ArchitectureComparator(wide, narrow, base).compare(64, 3, progress=False)) == ["A", "A"]
