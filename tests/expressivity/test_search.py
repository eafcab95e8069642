"""The search for a learning rate."""

import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace, ArchitectureComparator
from expressivity.fitting import Fitter
from expressivity.search import BUDGETS, CANDIDATES, search
from tests.expressivity.quick import QUICK


class Pretended:
    """Fits whose error is a function of the learning rate and the budget."""

    def __init__(self, error):
        self.error, self.calls = error, []

    def fit_with(self, rates, targets, numbers, budget):
        self.calls.append((list(rates), budget))
        return torch.tensor([[[self.error(lr, budget)] * 2] * 3 for lr in rates], dtype=torch.float64)


def found(monkeypatch, error, given=None, candidates=None):
    monkeypatch.setattr("expressivity.search.replace", lambda fitter, **_: fitter)
    fitter = Pretended(error)
    fitter.restarts = 2
    return search(fitter, None, range(3), given, candidates), fitter.calls


def valley(best):
    return lambda lr, budget: min(2.0, abs(torch.tensor(lr / best).log10().item()) / 4 + 0.1 * (1 - budget))


@pytest.mark.parametrize("best", [0.0003, 0.01, 1.0, 100.0, 1e-5])
def test_it_finds_the_best_one_also_beyond_the_candidates(monkeypatch, best):
    result, calls = found(monkeypatch, valley(best))
    assert result.lr == result.best
    assert best / 1.8 < result.lr < best * 1.8
    assert result.gain == 0
    assert calls[0] == (list(CANDIDATES), 0.25)
    assert [budget for _, budget in calls if budget > 0.25] == [0.5, 1.0]
    assert len(calls[-1][0]) <= 4


def test_a_given_one_is_kept_and_what_it_costs_is_said(monkeypatch):
    result, calls = found(monkeypatch, valley(0.1), given=0.002)
    assert result.lr == 0.002
    assert result.best == 0.1
    assert result.gain == pytest.approx(valley(0.1)(0.002, 1.0))
    assert all(0.002 in rates for rates, _ in calls if len(rates) > 1)
    result, calls = found(monkeypatch, valley(10.0), given=300.0)
    assert result.best == pytest.approx(10.0, rel=0.01)  # a far one does not hide what lies between
    result, calls = found(monkeypatch, valley(0.1), candidates=[0.5, 0.25])
    assert (result.lr, calls[0][0]) == (0.25, [0.25, 0.5])
    assert len(calls) == len(BUDGETS)
    for given in (0.5, None):
        result, calls = found(monkeypatch, valley(0.1), given, candidates=[0.5])
        assert (result.lr, result.best, result.gain, calls) == (0.5, 0.5, 0, [])


def test_where_nothing_works_it_ends(monkeypatch):
    result, calls = found(monkeypatch, lambda lr, budget: float("nan"))
    assert result.gain == 0
    assert len(calls) == len(BUDGETS)


def test_several_rates_in_one_stack_are_those_one_after_the_other(space, double):
    low_rank, full = space("low_rank", rank=2, depth=2, lr="auto"), space(depth=2)
    comparator = ArchitectureComparator(low_rank, low_rank, full)
    draws = {"seed": 0, "sub_iterations": 2, "evaluation_rows": 32}
    contest = comparator.contest(0, draws, None, True)
    fitter, targets = contest.fitters["A"], contest.sources["A"].draw(range(3))
    rates = [0.003, 0.1, 0.01]
    together = fitter.fit_with(rates, targets, range(3), 0.5)
    for size in (1, 7):
        fitter.stack_size = size
        assert torch.allclose(together, fitter.fit_with(rates, targets, range(3), 0.5), rtol=1e-8)
    fitter.stack_size = None
    for lr, errors in zip(rates, together, strict=True):
        fitter.lr = lr
        assert torch.allclose(errors, fitter.fit(targets, range(3), 0.5).fresh, rtol=1e-8)
    assert len({round(each.item(), 6) for each in together.mean((1, 2))}) == 3


def test_auto_uses_what_it_found_and_its_targets_are_others(space, monkeypatch):
    auto = space("low_rank", rank=2, lr="auto")
    fixed = space("low_rank", rank=2, lr=1e-4, lr_candidates=None)
    result = ArchitectureComparator(auto, fixed, space()).compare(**QUICK)
    (size,) = result.sizes
    a, b = size.found["A"], size.found["B"]
    assert a.lr == a.best > 0.01
    assert a.gain == 0
    assert (b.lr, b.best) == (1e-4, a.best)
    assert b.gain > 0.1
    assert size.fresh["A"].mean() < size.fresh["B"].mean()
    draws, seen, fit_with = {"seed": 0, "sub_iterations": 2, "evaluation_rows": 64}, [], Fitter.fit_with
    contest = ArchitectureComparator(auto, fixed, space()).contest(0, draws, None, True)

    def watch(self, rates, targets, numbers, budget):
        seen.append(targets)
        return fit_with(self, rates, targets, numbers, budget)

    monkeypatch.setattr(Fitter, "fit_with", watch)
    contest.tune()
    of_comparison = contest.sources["A"].draw(range(4))
    assert not any(torch.equal(x, y) for x in seen[0].x for y in of_comparison.x)


def test_an_optimizer_of_another_scale_is_tuned_too(space):
    plain = {"optimizer": torch.optim.SGD, "grad_clamp": None, "epoch": 10, "batch_size": 64}
    spaces = [ArchitecturalSpace(4, "sgd", lambda: nn.Linear(4, 4), lr="auto", **plain)] * 2
    result = ArchitectureComparator(*spaces, space(batch_size=64)).compare(**QUICK)
    assert result.sizes[0].found["A"].lr > 0.2
    assert result.sizes[0].fresh["A"].max() < 0.05
