"""The comparator: pairing, stopping, going on, and what is said of families that do not fit together."""

import csv
import json
import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal, Uniform

from expressivity import (
    ArchitecturalSpace,
    ArchitectureComparator,
    ComparisonResult,
    ExpressivityError,
    confidence_interval,
)
from expressivity.comparator import STATE
from expressivity.fitting import Fitter

QUICK = {"max_iterations": 4, "sub_iterations": 2, "progress": False, "evaluation_rows": 64}


@pytest.fixture
def families(space):
    """Two families and a base with two sizes each."""
    sizes = [{"depth": 1}, {"depth": 2}]
    return (
        space("low_rank", rank=1, sizes=sizes),
        space("n_diagonal", diagonals=3, sizes=sizes),
        space("full", sizes=sizes),
    )


def test_with_a_base_both_fit_the_same_targets_on_the_same_rows(families, monkeypatch):
    seen = []
    fit = Fitter.fit
    monkeypatch.setattr(
        Fitter, "fit", lambda self, targets, numbers: seen.append(targets) or fit(self, targets, numbers)
    )
    ArchitectureComparator(*families).compare(**QUICK)
    assert len(seen) == 4
    assert seen[0] is seen[1]
    assert seen[2] is seen[3]
    assert seen[0] is not seen[2]


def test_without_one_each_fits_the_other(space, monkeypatch):
    a, b = space("full", width=4, name="a"), space("tt", rank=2, d=2, width=4, name="b", measure=20)
    seen = []
    fit = Fitter.fit

    def watch(self, targets, numbers):
        seen.append((self.space.name, targets))
        return fit(self, targets, numbers)

    monkeypatch.setattr(Fitter, "fit", watch)
    ArchitectureComparator(a, b, tolerance=0.0).compare(**QUICK)
    (first, of_b), (second, of_a) = seen
    assert (first, second) == ("a", "b")
    weights = [torch.linalg.lstsq(torch.cat([t.x[0], torch.ones(32, 1)], 1), t.y[0]).solution for t in (of_a, of_b)]
    assert not torch.allclose(*weights)


def test_estimates_follow_from_the_errors(families):
    result = ArchitectureComparator(*families).compare(**QUICK)
    for size in result.sizes:
        for statistic, over in (("min", lambda e: e.min(1).values), ("mean", lambda e: e.mean(1))):
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


def test_it_stops_when_decided_and_when_narrow(space):
    narrow, wide = (space("low_rank", width=6, rank=r, epoch=10) for r in (1, 5))
    comparator = ArchitectureComparator(narrow, wide, space(width=6))
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


class Interrupted(Exception):
    pass


def test_an_interrupted_comparison_goes_on_to_the_same_end(families, tmp_path, monkeypatch):
    comparator = ArchitectureComparator(*families)
    options = {**QUICK, "max_iterations": 6, "stack_size": 4}
    whole = comparator.compare(**options)
    fit, calls = Fitter.fit, []

    def broken(self, targets, numbers):
        calls.append(numbers)
        if len(calls) == 10:
            raise Interrupted
        return fit(self, targets, numbers)

    monkeypatch.setattr(Fitter, "fit", broken)
    with pytest.raises(Interrupted):
        comparator.compare(**options, save_path=tmp_path / "run")
    saved = ComparisonResult.from_json(tmp_path / "run" / STATE)
    assert [size.targets for size in saved.sizes] == [6, 2]
    calls.clear()
    resumed = comparator.compare(**options, save_path=tmp_path / "run")
    assert calls == [range(2, 4)] * 2 + [range(4, 6)] * 2
    for one, other in zip(whole.sizes, resumed.sizes, strict=True):
        assert torch.equal(one.fresh["A"], other.fresh["A"])
        assert torch.equal(one.training["B"], other.training["B"])
    calls.clear()
    more = comparator.compare(**{**options, "max_iterations": 8}, save_path=tmp_path / "run")
    assert calls == [range(6, 8)] * 4
    assert torch.equal(more.sizes[0].fresh["A"][:6], whole.sizes[0].fresh["A"])
    assert [path.name for path in (tmp_path / "run").iterdir()] == [STATE]


def test_another_comparison_does_not_go_on_with_it(families, space, tmp_path):
    ArchitectureComparator(*families).compare(**QUICK, save_path=tmp_path)
    content = (tmp_path / STATE).read_bytes()
    changed = space("low_rank", rank=1, sizes=[{"depth": 1}, {"depth": 2}], lr=0.5)
    for comparator, options, named in (
        (ArchitectureComparator(changed, *families[1:]), {}, "spaces"),
        (ArchitectureComparator(*families), {"seed": 2}, "seed"),
        (ArchitectureComparator(*families, law=Uniform(-1, 1)), {}, "law"),
    ):
        with pytest.raises(ExpressivityError, match=f"comparison.json is of another comparison: {named} differ"):
            comparator.compare(**QUICK | options, save_path=tmp_path)
    assert (tmp_path / STATE).read_bytes() == content
    (tmp_path / STATE).write_bytes(content[:100])
    with pytest.raises(ExpressivityError, match="comparison.json does not hold the result of a comparison"):
        ArchitectureComparator(*families).compare(**QUICK, save_path=tmp_path)


def test_results_as_json_csv_and_figures(families, tmp_path):
    result = ArchitectureComparator(*families).compare(**QUICK)
    result.sizes[0].fresh["A"][0, 0] = math.nan  # as of a fit that diverged
    result.to_json(tmp_path / "whole.json")
    again = ComparisonResult.from_json(tmp_path / "whole.json")
    assert str(again.rows()) == str(result.rows())
    json.loads((tmp_path / "whole.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    result.to_csv(tmp_path / "table.csv")
    with open(tmp_path / "table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["size"], row["statistic"], row["diverged_A"]) for row in rows] == [
        ("0", "min", "1"), ("1", "min", "0"), ("0", "mean", "1"), ("1", "mean", "0"),
    ]  # fmt: skip
    assert float(rows[1]["difference_low"]) == again.estimates("min")[1].difference.low
    for statistic in ("min", "mean"):
        figure = result.plot(statistic, tmp_path / f"{statistic}.png")
        assert statistic in figure.axes[0].get_ylabel()
    figure = result.plot_density(tmp_path / "density.svg")
    assert len(figure.axes) == 2
    assert (tmp_path / "min.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ExpressivityError, match="the statistic is 'median'; allowed: min, mean"):
        result.plot("median")
    result.plot("min", tmp_path / "without_suffix")
    assert (tmp_path / "without_suffix").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ExpressivityError, match="figure.xyz cannot be drawn: ValueError"):
        result.plot("min", tmp_path / "figure.xyz")
    with pytest.raises(ExpressivityError, match="cannot be written"):
        result.to_csv(tmp_path / "table.csv" / "below_a_file.csv")


def test_the_density_is_the_distribution_of_the_errors(families):
    result = ArchitectureComparator(*families).compare(**QUICK)
    errors = result.sizes[1].fresh["B"].amin(1)
    curve = result.density(1)["B"]
    assert curve.tolist() == sorted(errors.tolist())
    for eps in (0.0, curve[1].item(), 10.0):
        assert result.share_within(eps, 1)["B"] == sum(e <= eps for e in errors.tolist()) / 4
    assert result.share_within(10.0, 1) == {"A": 1.0, "B": 1.0}


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
    with pytest.raises(ExpressivityError, match="space 'constant', size 0: 100 targets in a row have the same output"):
        ArchitectureComparator(space(), space(), constant).compare(**QUICK)


def test_fits_that_diverge_are_counted_as_the_best_constant(space):
    class Torn(nn.Linear):
        """Every other one explodes."""

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
    counted = torch.where(lost, 1.0, size.fresh["A"])
    assert size.estimate("mean", 0.95).errors["A"].mean == pytest.approx(counted.mean().item())
    assert size.estimate("min", 0.95).errors["A"].mean == pytest.approx(counted.amin(1).mean().item())


def test_where_all_fits_diverge_nothing_is_compared(space):
    huge = space("full", lr=1e30, grad_clamp=None, optimizer=torch.optim.SGD, name="huge")
    with pytest.raises(ExpressivityError, match="space 'huge', size 0: all 8 fits diverged; lower lr"):
        ArchitectureComparator(space(), huge, space()).compare(**QUICK)


def test_below_the_first_look_nothing_is_decided(space):
    narrow, wide = (space("low_rank", width=6, rank=r, epoch=10) for r in (1, 5))
    comparator = ArchitectureComparator(narrow, wide, space(width=6))
    for targets, winner in ((31, "undecided"), (32, "B")):
        (estimate,) = comparator.compare(targets, 1, progress=False, stop_when_decided=False).estimates("min")
        assert estimate.difference.excludes_zero
        assert estimate.winner == winner


def test_of_many_targets_one_can_stop_early(space):
    """Even where all would fit into one stack."""
    narrow, wide = (space("low_rank", width=6, rank=r, epoch=10) for r in (1, 5))
    comparator = ArchitectureComparator(narrow, wide, space(width=6))
    assert comparator.compare(400, 1, progress=False).sizes[0].targets == 100
    assert comparator.compare(80, 1, progress=False).sizes[0].targets == 32


def test_both_statistics_must_be_settled(families):
    result = ArchitectureComparator(*families).compare(**{**QUICK, "max_iterations": 40, "stop_when_decided": False})
    (size, _), rule = result.sizes, (0.95, 0.0, True)
    worse = size.fresh["B"] + 1 + torch.rand(40, 2, generator=torch.Generator().manual_seed(0))
    size.fresh["A"] = worse
    assert size.settled(*rule)
    noise = 1e6 * torch.randn(40, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size.fresh["A"] = torch.cat([worse[:, :1], worse[:, 1:] + noise.abs()], 1)  # the mean is noise, the minimum is not
    size.fresh["B"] = torch.cat([size.fresh["B"][:, :1], size.fresh["B"][:, 1:] + noise.flip(0).abs()], 1)
    assert size.estimate("min", 0.95).difference.excludes_zero
    assert not size.estimate("mean", 0.95).difference.excludes_zero
    assert not size.settled(*rule)


class Noisy(nn.Sequential):
    """Other outputs in training than in evaluation mode."""

    def __init__(self):
        super().__init__(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 4))


def test_targets_and_fitted_networks_are_asked_in_evaluation_mode(space):
    noisy = ArchitecturalSpace(4, "noisy", Noisy, batch_size=256, epoch=40, lr=0.02)
    full = space(batch_size=256, epoch=100, lr=0.05, width=4)
    result = ArchitectureComparator(full, noisy, noisy).compare(**QUICK)
    assert result.sizes[0].fresh["A"].max() < 0.01  # without dropout the target is linear
    calls = []

    def keep(network, x, y):
        calls.append(network)
        return network.train()

    own = ArchitecturalSpace(4, "own", Noisy, batch_size=32, train=keep)
    with pytest.warns(UserWarning, match="a routine of their own"):
        ArchitectureComparator(own, full, full).compare(**QUICK)
    assert not any(network.training for network in calls)


class Overwriting(nn.Linear):
    """Works in place on what it is given."""

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
    with pytest.warns(UserWarning, match="a routine of their own"):
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


def test_a_law_or_criterion_with_other_numbers_is_another_comparison(space, tmp_path):
    def run(law, criterion):
        comparator = ArchitectureComparator(space(), space(), space(), criterion=criterion, law=law)
        return comparator.compare(**QUICK, save_path=tmp_path, confidence=0.9)

    run(Normal(torch.zeros(4), torch.ones(4)), nn.HuberLoss())
    assert run(Normal(torch.zeros(4), torch.ones(4)), nn.HuberLoss()).confidence == 0.9
    with pytest.raises(ExpressivityError, match="law differ"):
        run(Normal(torch.zeros(4), 50 * torch.ones(4)), nn.HuberLoss())
    with pytest.raises(ExpressivityError, match="criterion differ"):
        run(Normal(torch.zeros(4), torch.ones(4)), nn.HuberLoss(delta=0.1))


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
    with pytest.warns(UserWarning, match="'exact', size 0: networks are fitted one by one; by a routine of their own"):
        result = ArchitectureComparator(exact, space(), space()).compare(**QUICK)
    assert calls == [((32, 4), (32, 4))] * 8
    assert result.sizes[0].fresh["A"].max() < 1e-10


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("routine", "message"),
    [
        (lambda network, x, y: None, "its training routine returns None; it must return the network"),
        (lambda network, x: network, "the fit of a network fails: TypeError"),
    ],
)
def test_routines_that_go_wrong(space, routine, message):
    own = space(name="own", train=routine)
    with pytest.raises(ExpressivityError, match=f"space 'own', size 0: {message}"):
        ArchitectureComparator(own, space(), space()).compare(**QUICK)


def test_families_that_do_not_fit_together(space):
    linear = {"in_features": 4, "out_features": 3}
    three = ArchitecturalSpace(4, "three", nn.Linear, linear, measure=20)
    with pytest.raises(ExpressivityError, match=r"size 0: output sizes differ: \(4,\) of 'full', \(3,\) of 'three'"):
        ArchitectureComparator(space(), three)
    with pytest.raises(ExpressivityError, match=r"input sizes differ: \(4,\) of 'full', \(5,\) of 'low_rank'"):
        ArchitectureComparator(space(), space("low_rank", rank=1, width=5, measure=20))
    with pytest.raises(ExpressivityError, match="different numbers of sizes: 'full' 3, 'full' 2"):
        ArchitectureComparator(space(sizes=[{}] * 3), space(sizes=[{}] * 2))
    with pytest.raises(ExpressivityError, match="A is <class .*; it must be an ArchitecturalSpace"):
        ArchitectureComparator(nn.Linear, space())
    with pytest.raises(ExpressivityError, match="the device 'cudaa' cannot be used: RuntimeError"):
        ArchitectureComparator(space(), space(), device="cudaa")
    with pytest.raises(ExpressivityError, match="different numbers of sizes: 'full' 2, 'low_rank' 3"):
        ArchitectureComparator(space(sizes=[{}] * 2), space("low_rank", sizes=[{"rank": 1}] * 3))
    wrong_input = ArchitecturalSpace(4, "five", nn.Linear, {"in_features": 5, "out_features": 4}, measure=20)
    with pytest.raises(
        ExpressivityError, match=r"space 'five', size 0: the network does not take inputs of size \(4,\)"
    ):
        ArchitectureComparator(space(), wrong_input)
    tuples = ArchitecturalSpace(4, "lstm", nn.LSTM, {"input_size": 4, "hidden_size": 4}, measure=20)
    with pytest.raises(ExpressivityError, match=r"space 'lstm', size 0: of 2 rows the network makes tuple"):
        ArchitectureComparator(space(), tuples)


def test_unequal_measures_need_a_base_or_a_tolerance(space):
    a, b = space(sizes=[{}, {"depth": 2}]), space("low_rank", rank=2, sizes=[{}, {"depth": 2}])
    c = space("low_rank", rank=1, sizes=[{}, {"depth": 2}], name="c")
    assert ArchitectureComparator(a, b).measures == {"A": [20, 40], "B": [20, 40]}
    with pytest.raises(ExpressivityError, match=r"tolerance 0\); 'full' has \[20, 40\], 'c' \[12, 24\]"):
        ArchitectureComparator(a, c)
    with pytest.raises(ExpressivityError, match=r"tolerance 0.3\)"):
        ArchitectureComparator(a, c, tolerance=0.3)
    ArchitectureComparator(a, c, tolerance=0.4)
    ArchitectureComparator(a, c, b)


class Nan:
    """A law without numbers."""

    def sample(self, shape):
        return torch.full(tuple(shape), math.nan)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Nan(), "space 'full', size 0: the law .* gives inputs that are not finite"),
        (Normal(torch.zeros(3), torch.ones(3)), r"the law .* gives \(2, 3\) for 2 inputs; .* asks for \(2, 4\)"),
        (MultivariateNormal(torch.zeros(7), torch.eye(7)), r"the law .* gives \(2, 7\)"),
        ("normal", "the law normal cannot be sampled"),
    ],
)
def test_laws_that_do_not_work(space, law, message):
    with pytest.raises(ExpressivityError, match=message):
        ArchitectureComparator(space(), space(), law=law)


def test_laws_of_whole_inputs(space):
    law = MultivariateNormal(torch.zeros(4), torch.diag(torch.tensor([1.0, 4.0, 9.0, 16.0])))
    result = ArchitectureComparator(space(), space("low_rank", rank=1), space(), law=law).compare(**QUICK)
    assert result.sizes[0].fresh["A"].isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iterations": 0}, "max_iterations is 0; it must be a whole number, at least 1"),
        ({"sub_iterations": 2.5}, "sub_iterations is 2.5"),
        ({"variance_threshold": -1}, "variance_threshold is -1; it must be a number, at least 0"),
        ({"confidence": 1.0}, "confidence is 1.0; it must be a number between 0 and 1"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"evaluation_rows": 1}, "evaluation_rows is 1; it must be a whole number, at least 2"),
        ({"stack_size": 0}, "stack_size is 0"),
    ],
)
def test_wrong_options(space, options, message):
    with pytest.raises(ExpressivityError, match=message):
        ArchitectureComparator(space(), space()).compare(**{**QUICK, **options})


def test_nothing_to_plot(space):
    with pytest.raises(ExpressivityError, match=r"nothing to plot before compare\(\)"):
        ArchitectureComparator(space(), space()).plot("min")


def test_other_criteria_and_precisions(space):
    a, b, base = space("low_rank", rank=1), space("n_diagonal", diagonals=3), space()
    result = ArchitectureComparator(a, b, base, criterion=nn.L1Loss()).compare(**QUICK)
    assert 0 < result.sizes[0].fresh["A"].mean() < 2
    half = ArchitecturalSpace(4, "half", lambda: nn.Linear(4, 4, dtype=torch.bfloat16), batch_size=64, epoch=20)
    result = ArchitectureComparator(half, space(epoch=20), space()).compare(**QUICK)
    assert result.sizes[0].measures["A"] == 20 * 16
    assert result.sizes[0].fresh["A"].isfinite().all()
