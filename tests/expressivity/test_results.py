"""The output of a comparison: a state to resume from, tables, figures, densities."""

import csv
import json
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, Uniform

from common.errors import ConfigError
from expressivity import (
    ArchitectureComparator,
    ComparisonResult,
    ExpressivityError,
)
from expressivity.comparator import STATE
from expressivity.contest import Contest
from expressivity.verdict import KINDS
from tests.expressivity.quick import QUICK


class Interrupted(Exception):
    pass


def test_an_interrupted_comparison_goes_on_to_the_same_end(families, tmp_path, monkeypatch):
    comparator = ArchitectureComparator(*families)
    options = {**QUICK, "max_iterations": 6, "stack_size": 4}
    whole = comparator.compare(**options)
    fit, calls, searches = Contest.fit, [], []
    tune = Contest.tune

    def broken(self, numbers):
        calls.append(numbers)
        if len(calls) == 5:
            raise Interrupted
        return fit(self, numbers)

    monkeypatch.setattr(Contest, "fit", broken)
    monkeypatch.setattr(Contest, "tune", lambda self: searches.append(self) or tune(self))
    with pytest.raises(Interrupted):
        comparator.compare(**options, save_path=tmp_path / "run")
    saved = ComparisonResult.from_json(tmp_path / "run" / STATE)
    assert [size.targets for size in saved.sizes] == [6, 2]
    calls.clear()
    searches.clear()
    resumed = comparator.compare(**options, save_path=tmp_path / "run")
    assert calls == [range(2, 4), range(4, 6)]
    assert not searches  # the learning rates of both sizes were saved
    for one, other in zip(whole.sizes, resumed.sizes, strict=True):
        assert one.found == other.found
        for kind in KINDS:
            assert all(torch.equal(one.errors[kind][family], other.errors[kind][family]) for family in "AB")
    calls.clear()
    more = comparator.compare(**{**options, "max_iterations": 8}, save_path=tmp_path / "run")
    assert calls == [range(6, 8)] * 2
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
        with pytest.raises(
            ExpressivityError, match=rf"comparison.json belongs to a different comparison \(different {named}\)"
        ):
            comparator.compare(**QUICK | options, save_path=tmp_path)
    assert (tmp_path / STATE).read_bytes() == content
    whole = json.loads(content)
    whole["sizes"][0]["errors"]["fresh"]["A"][0][0] += 1e-12
    (tmp_path / STATE).write_text(json.dumps(whole))
    with pytest.raises(ExpressivityError, match=r"comparison.json was changed after it was written; delete it"):
        ArchitectureComparator(*families).compare(**QUICK, save_path=tmp_path)
    (tmp_path / STATE).write_bytes(content[:100])
    with pytest.raises(ExpressivityError, match="comparison.json cannot be read as a comparison result"):
        ArchitectureComparator(*families).compare(**QUICK, save_path=tmp_path)


def test_a_law_or_criterion_with_other_numbers_is_another_comparison(space, tmp_path):
    def run(law, criterion):
        comparator = ArchitectureComparator(space(), space(), space(), criterion=criterion, law=law)
        return comparator.compare(**QUICK, save_path=tmp_path, confidence=0.9)

    run(Normal(torch.zeros(4), torch.ones(4)), nn.HuberLoss())
    assert run(Normal(torch.zeros(4), torch.ones(4)), nn.HuberLoss()).confidence == 0.9
    with pytest.raises(ExpressivityError, match=r"\(different law\)"):
        run(Normal(torch.zeros(4), 50 * torch.ones(4)), nn.HuberLoss())
    with pytest.raises(ExpressivityError, match=r"\(different criterion\)"):
        run(Normal(torch.zeros(4), torch.ones(4)), nn.HuberLoss(delta=0.1))


class OwnLaw:
    def __init__(self, scale):
        self.scale = scale

    def sample(self, shape):
        return self.scale * torch.randn(shape)


class Weighted(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, output, target):
        return self.weight * (output - target).square().mean()


def scaled(factor):
    return lambda output, target: factor * (output - target).square().mean()


DIFFERENT = {
    "law": [{"law": OwnLaw(1.0)}, {"law": OwnLaw(5.0)}],
    "criterion of buffers": [{"criterion": Weighted(1.0)}, {"criterion": Weighted(2.0)}],
    "criterion without a name": [
        {"criterion": lambda a, b: (a - b).square().mean()},
        {"criterion": lambda a, b: (a - b).abs().mean()},
    ],
    "criterion that encloses": [{"criterion": scaled(1.0)}, {"criterion": scaled(2.0)}],
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_objects_and_functions_of_ones_own_are_told_apart(space, tmp_path, name):
    first, second = (ArchitectureComparator(space(), space(), space(), **each) for each in DIFFERENT[name])
    first.compare(**QUICK, save_path=tmp_path)
    first.compare(**QUICK, save_path=tmp_path)
    with pytest.raises(ExpressivityError, match=rf"\(different {name.split()[0]}\)"):
        second.compare(**QUICK, save_path=tmp_path)


def test_results_as_json_csv_and_figures(families, tmp_path):
    result = ArchitectureComparator(*families).compare(**QUICK)
    result.sizes[0].fresh["A"][0, 0] = math.nan  # as for a diverged fit
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
    with pytest.raises(ExpressivityError, match="statistic is 'median'; allowed: min, mean"):
        result.plot("median")
    result.plot("min", tmp_path / "without_suffix")
    assert (tmp_path / "without_suffix").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ExpressivityError, match="figure.xyz cannot be saved: ValueError"):
        result.plot("min", tmp_path / "figure.xyz")
    with pytest.raises(ConfigError, match="cannot be written"):
        result.to_csv(tmp_path / "table.csv" / "below_a_file.csv")


def test_the_density_is_the_distribution_of_the_errors(families):
    result = ArchitectureComparator(*families).compare(**QUICK)
    errors = result.sizes[1].fresh["B"].amin(1)
    curve = result.density(1)["B"]
    assert curve.tolist() == sorted(errors.tolist())
    for eps in (0.0, curve[1].item(), 10.0):
        assert result.share_within(eps, 1)["B"] == sum(e <= eps for e in errors.tolist()) / 4
    assert result.share_within(10.0, 1) == {"A": 1.0, "B": 1.0}


def test_nothing_to_plot(space):
    with pytest.raises(ExpressivityError, match=r"nothing to plot; call compare\(\) first"):
        ArchitectureComparator(space(), space()).plot("min")
