"""The comparator: pairing, stopping, random draws, and badly behaved networks."""

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

from expressivity import (
    ArchitecturalSpace,
    ArchitectureComparator,
    ExpressivityError,
    confidence_interval,
)
from expressivity.fitting import Fitter
from tests.expressivity.quick import QUICK


def test_with_a_base_both_fit_the_same_targets_on_the_same_rows(families, monkeypatch):
    seen = []
    fit = Fitter.fit

    def watch(self, targets, numbers, budget=1.0):
        seen.append((self.space.name, budget, targets))
        return fit(self, targets, numbers, budget)

    monkeypatch.setattr(Fitter, "fit", watch)
    ArchitectureComparator(*families).compare(**QUICK)
    assert [each[:2] for each in seen] == [
        (name, budget) for name in ("low_rank", "n_diagonal") for budget in (1.0, 0.5, 1.0)
    ] * 2  # to the target, with half the steps, and to members of the family
    of_base = [targets for *_, targets in seen]
    assert of_base[0] is of_base[3]
    assert of_base[6] is of_base[9]
    assert of_base[0] is not of_base[6]
    assert torch.equal(of_base[0].y, of_base[1].y)
    assert torch.equal(of_base[1].x, of_base[4].x)


def test_without_one_each_fits_the_other(space, monkeypatch):
    a, b = space("full", width=4, name="a"), space("tt", rank=2, d=2, width=4, name="b", measure=20)
    seen = []
    fit = Fitter.fit

    def watch(self, targets, numbers, budget=1.0):
        seen.append((self.space.name, targets))
        return fit(self, targets, numbers, budget)

    monkeypatch.setattr(Fitter, "fit", watch)
    ArchitectureComparator(a, b, tolerance=0.0).compare(**QUICK)
    (first, of_b), _, (_, own_of_a), (second, of_a), _, (_, own_of_b) = seen
    assert (first, second) == ("a", "b")
    assert torch.equal(own_of_a.y, of_a.y)  # what b imitates is what a should reach
    assert torch.equal(own_of_b.y, of_b.y)
    weights = [torch.linalg.lstsq(torch.cat([t.x[0], torch.ones(32, 1)], 1), t.y[0]).solution for t in (of_a, of_b)]
    assert not torch.allclose(*weights)


def test_estimates_follow_from_the_errors(families):
    result = ArchitectureComparator(*families).compare(**QUICK)
    for size in result.sizes:
        size.fresh["A"][0] = torch.tensor([1e8, 0.3])  # counts as 1 and 0.3
        for statistic, over in (
            ("min", lambda e: e.clamp_max(1).min(1).values),
            ("mean", lambda e: e.clamp_max(1).mean(1)),
        ):
            estimate = size.estimate(statistic, 0.95)
            a, b = over(size.fresh["A"]), over(size.fresh["B"])
            assert estimate.errors["A"].mean == pytest.approx(a.mean().item())
            assert estimate.difference.mean == pytest.approx((a - b).mean().item())
            assert estimate.training["B"] == pytest.approx(over(size.training["B"]).mean().item())
    assert result.names == {"A": "low_rank", "B": "n_diagonal", "base": "full"}
    assert [size.measures for size in result.sizes] == [
        {"A": 12, "B": 14, "base": 20},
        {"A": 24, "B": 28, "base": 40},
    ]


def test_the_same_seed_repeats_it_and_another_does_not(families):
    comparator = ArchitectureComparator(*families)
    torch.manual_seed(5)
    first, state = comparator.compare(**QUICK), torch.get_rng_state()
    second, other = comparator.compare(**QUICK), comparator.compare(**QUICK, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    for size, same, changed in zip(first.sizes, second.sizes, other.sizes, strict=True):
        assert torch.equal(size.fresh["A"], same.fresh["A"])
        assert not (size.fresh["A"] == changed.fresh["A"]).any()
    assert not (first.sizes[0].fresh["A"] == first.sizes[1].fresh["A"]).any()


def of_a_clear_case(space):
    """Rank 1 against rank 5 of 6, with a budget that suffices."""
    narrow, wide = (space("low_rank", width=6, rank=r, epoch=20, lr=0.1) for r in (1, 5))
    return ArchitectureComparator(narrow, wide, space(width=6, batch_size=128))


@pytest.mark.slow
def test_it_stops_when_decided_and_when_narrow(space):
    comparator = of_a_clear_case(space)
    options = {"sub_iterations": 1, "stack_size": 16, "progress": False}
    decided = comparator.compare(96, **options).sizes[0]
    assert 32 <= decided.targets < 96
    assert decided.targets % 16 == 0
    whole = comparator.compare(96, **options, stop_when_decided=False).sizes[0]
    assert whole.targets == 96

    def width(targets):
        return confidence_interval((whole.fresh["A"] - whole.fresh["B"])[:targets, 0]).width

    looks = range(32, 97, 16)
    first = min(looks[1:], key=width)  # narrower than at each look before
    threshold = (width(first) + min(width(n) for n in looks if n < first)) / 2
    narrow = comparator.compare(96, variance_threshold=threshold, stop_when_decided=False, **options).sizes[0]
    assert narrow.targets == first


def test_targets_that_are_constant_are_drawn_anew_and_counted(space):
    class Sometimes(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            if torch.rand(1) < 0.5:
                nn.init.zeros_(self.weight)

    base = ArchitecturalSpace(4, "sometimes", Sometimes, batch_size=32)
    result = ArchitectureComparator(space(), space("low_rank", rank=1), base).compare(**{**QUICK, "max_iterations": 30})
    assert 10 < result.sizes[0].redrawn < 60
    assert result.sizes[0].fresh["A"].isfinite().all()

    class Never(nn.Linear):
        def __init__(self):
            super().__init__(4, 4)
            nn.init.zeros_(self.weight)

    constant = ArchitecturalSpace(4, "constant", Never, batch_size=32)
    with pytest.raises(ExpressivityError, match="space 'constant', size 0: 100 targets in a row are constant"):
        ArchitectureComparator(space(), space(), constant).compare(**QUICK)


def test_fits_that_diverge_are_counted_as_the_best_constant(space):
    class Torn(nn.Linear):
        """Explodes in half of the cases."""

        def __init__(self):
            super().__init__(4, 4)
            self.factor = nn.Parameter(torch.where(torch.rand(1) < 0.5, 1.0, 1e30), requires_grad=False)

        def forward(self, x):
            return super().forward(x) * self.factor

    torn = ArchitecturalSpace(4, "torn", Torn, batch_size=32, epoch=5)
    size = ArchitectureComparator(torn, space(epoch=5), space()).compare(**{**QUICK, "max_iterations": 20}).sizes[0]
    lost = size.fresh["A"].isnan()
    assert 5 < size.diverged["A"] == lost.sum() < 35
    assert size.diverged["B"] == 0
    counted = torch.where(lost, 1.0, size.fresh["A"]).clamp_max(1)
    assert size.bounded["A"] == (counted == 1).double().mean()
    assert size.estimate("mean", 0.95).errors["A"].mean == pytest.approx(counted.mean().item())
    assert size.estimate("min", 0.95).errors["A"].mean == pytest.approx(counted.amin(1).mean().item())


def test_below_the_first_look_nothing_is_decided(space):
    comparator = of_a_clear_case(space)
    for targets, winner in ((31, "undecided"), (32, "B")):
        (estimate,) = comparator.compare(targets, 1, progress=False, stop_when_decided=False).estimates("min")
        assert estimate.difference.excludes_zero
        assert estimate.winner == winner


def test_of_many_targets_one_can_stop_early(space):
    """Even if all of them would fit into one stack."""
    comparator = of_a_clear_case(space)
    assert comparator.compare(400, 1, progress=False).sizes[0].targets == 100
    assert comparator.compare(80, 1, progress=False).sizes[0].targets == 32


def test_both_statistics_must_be_settled(families):
    result = ArchitectureComparator(*families).compare(**{**QUICK, "max_iterations": 40, "stop_when_decided": False})
    (size, _), rule = result.sizes, (0.95, 0.0, True)
    size.found, random = {}, torch.rand(2, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size.errors["floor"] = {family: torch.zeros(40, 2, dtype=torch.float64) for family in "AB"}
    size.fresh.update(A=0.4 + 0.1 * random[0], B=0.1 * random[1])
    size.errors["half"] = dict(size.fresh)
    assert size.settled(*rule)
    size.fresh["A"] = torch.stack([size.fresh["A"][:, 0], 0.2 + 0.6 * random[0, :, 0]], 1)  # the mean is noise
    size.fresh["B"] = torch.stack([size.fresh["B"][:, 0], 0.85 + 0.1 * random[0, :, 1]], 1)
    size.errors["half"] = dict(size.fresh)
    assert size.estimate("min", 0.95).difference.excludes_zero
    assert not size.estimate("mean", 0.95).difference.excludes_zero
    assert not size.settled(*rule)


class Noisy(nn.Sequential):
    """Gives different outputs in training and evaluation mode."""

    def __init__(self):
        super().__init__(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 4))


def test_targets_and_fitted_networks_are_asked_in_evaluation_mode(space):
    noisy = ArchitecturalSpace(4, "noisy", Noisy, batch_size=256, epoch=2, lr_candidates=[0.01])
    full = space(batch_size=256, epoch=100, lr=0.05, width=4)
    result = ArchitectureComparator(full, noisy, noisy).compare(**QUICK)
    assert result.sizes[0].fresh["A"].max() < 0.01  # without dropout the target is linear
    calls = []

    def keep(network, x, y):
        calls.append(network)
        return network.train()

    own = ArchitecturalSpace(4, "own", Noisy, batch_size=32, train=keep)
    with pytest.warns(UserWarning, match="the space sets train"):
        ArchitectureComparator(own, space(), space()).compare(**QUICK)
    assert not any(network.training for network in calls)


class Overwriting(nn.Linear):
    """Modifies its input in place."""

    def forward(self, x):
        return super().forward(x.relu_())


def test_networks_and_routines_that_write_to_their_input_change_nothing(space):
    def spoil(network, x, y):
        x.zero_()
        y.zero_()
        return network

    linear = {"in_features": 4, "out_features": 4}
    base = ArchitecturalSpace(4, "overwriting", Overwriting, linear, batch_size=32)
    own = ArchitecturalSpace(4, "own", nn.Linear, linear, batch_size=32, train=spoil)
    comparator = ArchitectureComparator(own, space(), base)
    with pytest.warns(UserWarning, match="the space sets train"):
        contest = comparator.contest(0, {"seed": 0, "sub_iterations": 2, "evaluation_rows": 64}, None, True)
    targets = contest.sources["A"].draw(range(2))
    before = targets.x.clone(), targets.y.clone()
    assert (targets.x < 0).any()
    contest.fitters["A"].fit(targets, range(2))
    assert torch.equal(targets.x, before[0])
    assert torch.equal(targets.y, before[1])


def test_every_draw_has_a_seed_of_its_own(space):
    families = space("low_rank", rank=1, sizes=[{}, {}]), space("full", sizes=[{}, {}])

    def weights(index, seed, number, restart):
        draws = {"seed": seed, "sub_iterations": 2, "evaluation_rows": 8}
        contest = ArchitectureComparator(*families, families[1]).contest(index, draws, None, True)
        return contest.fitters["B"].network(number, restart).layers[0].weight

    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    drawn = torch.stack([weights(*key) for key in keys])
    assert drawn.unique(dim=0).shape[0] == len(keys)
    assert torch.equal(drawn[0], weights(*keys[0]))
    comparator = ArchitectureComparator(*families, families[1])
    contests = [
        comparator.contest(k, {"seed": 0, "sub_iterations": 2, "evaluation_rows": 8}, None, True) for k in (0, 1)
    ]
    x = [contest.sources["B"].draw(range(1)).x for contest in contests]
    assert not torch.equal(*x)
    orders = [next(iter(contest.fitters["B"].recipe.epochs(32)))[0] for contest in contests]
    assert not torch.equal(*orders)
    target = contests[0].sources["B"].draw(range(1))
    solution = torch.linalg.lstsq(torch.cat([target.x[0], torch.ones(32, 1)], 1), target.y[0]).solution[:4]
    assert not any(torch.allclose(solution, weight, atol=1e-3) for weight in drawn)  # no fit starts at its target


def test_a_routine_of_the_users_own(space):
    calls = []

    def solve(network, x, y):
        calls.append((x.shape, y.shape))
        solution = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
        with torch.no_grad():
            network.layers[0].weight.copy_(solution[:-1])
            network.layers[0].bias.copy_(solution[-1])
        return network

    exact = space(name="exact", train=solve)
    with pytest.warns(UserWarning, match="'exact', size 0: networks are fitted one at a time: the space sets train"):
        result = ArchitectureComparator(exact, space(), space()).compare(**QUICK)
    assert calls == [((32, 4), (32, 4))] * 16  # two fits to each of 4 targets, and as many to members of its own
    assert result.estimates("min")[0].movements["A"] is None  # there is no budget to halve
    assert result.sizes[0].fresh["A"].max() < 1e-10


def test_laws_of_whole_inputs(space):
    law = MultivariateNormal(torch.zeros(4), torch.diag(torch.tensor([1.0, 4.0, 9.0, 16.0])))
    result = ArchitectureComparator(space(), space("low_rank", rank=1), space(), law=law).compare(**QUICK)
    assert result.sizes[0].fresh["A"].isfinite().all()


def test_other_criteria_and_precisions(space):
    a, b, base = space("low_rank", rank=1), space("n_diagonal", diagonals=3), space()
    result = ArchitectureComparator(a, b, base, criterion=nn.L1Loss()).compare(**QUICK)
    assert 0 < result.sizes[0].fresh["A"].mean() < 2
    half = ArchitecturalSpace(4, "half", lambda: nn.Linear(4, 4, dtype=torch.bfloat16), batch_size=64, epoch=20)
    result = ArchitectureComparator(half, space(epoch=20), space()).compare(**QUICK)
    assert result.sizes[0].measures["A"] == 20 * 16
    assert result.sizes[0].fresh["A"].isfinite().all()
