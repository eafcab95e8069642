"""A short search for the learning rate of a family at one size, by successive halving.

All candidates get a part of the budget, the better half of them twice that, and so on, until the last ones get the
whole budget. Jamieson and Talwalkar 2016, https://arxiv.org/abs/1502.07943.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from expressivity.fitting import Fitter
from expressivity.targets import Targets
from expressivity.verdict import HOPELESS, bounded

CANDIDATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
STEP, LOWEST, HIGHEST = 10**0.5, 1e-7, 1e4  # how the candidates go on if the best is at an end, and until where
BUDGETS = (0.25, 0.5, 1.0)
TARGETS, RESTARTS = 12, 2
FIRST = 2**32  # number of the first target of a search, beyond those of a comparison
ALONE = 3  # targets for networks that are fitted one at a time


@dataclass(frozen=True)
class Trial:
    """The mean error that a learning rate leaves after a part of the budget; one above HOPELESS counts as that."""

    lr: float
    budget: float
    error: float


@dataclass(frozen=True)
class Found:
    """The result of a search.

    lr: the learning rate to use: the given one, or the best one; None: a routine of the user's own has none.
    gain: by how much the error of the best one is lower than that of `lr`.
    best: the learning rate with the lowest error at the whole budget.
    trials: all errors that were measured.
    """

    lr: float | None
    gain: float
    best: float | None
    trials: tuple[Trial, ...] = ()


def search(
    fitter: Fitter, targets: Targets, numbers: range, given: float | None, candidates: Iterable[float] | None
) -> Found:
    """Find the learning rate with which `fitter` leaves the smallest mean error.

    fitter: what fits the family; it is left unchanged.
    targets, numbers: targets of the search.
    given: the learning rate that the family uses in any case; None: the best one.
    candidates: what to try; None: CANDIDATES, and beyond the end at which the best one is. If there is only one,
        nothing is tried.
    """
    fitter = replace(fitter, restarts=min(RESTARTS, fitter.restarts))
    trials: list[Trial] = []

    def tried(rates: Iterable[float], budget: float) -> dict[float, float]:
        rates = sorted(rates)
        errors = bounded(fitter.fit_with(rates, targets, numbers, budget), HOPELESS).mean((1, 2)).tolist()
        trials.extend(map(Trial, rates, [budget] * len(rates), errors))
        return dict(zip(rates, errors, strict=True))

    kept = {given} if given else set()
    first = {*(CANDIDATES if candidates is None else candidates), *kept}
    if len(first) == 1:
        return Found(*first, 0.0, *first)
    errors = tried(first, BUDGETS[0])
    far = given if given not in CANDIDATES else None  # it may lie beyond rates that were not tried
    while candidates is None and (beyond := _beyond({rate: errors[rate] for rate in errors if rate != far})):
        errors |= tried([beyond], BUDGETS[0])
    for budget in BUDGETS[1:]:
        ranked = sorted(errors, key=errors.__getitem__)
        errors = tried({*ranked[: (len(ranked) + 1) // 2], *kept}, budget)
    best = min(errors, key=errors.__getitem__)
    return Found(given or best, errors[given or best] - errors[best], best, tuple(trials))


def _beyond(errors: dict[float, float]) -> float | None:
    """A learning rate below or above all others if the best one is at that end; None if it is not."""
    best, low, high = min(errors, key=errors.__getitem__), min(errors), max(errors)
    beyond = low / STEP if best == low else high * STEP
    goes_on = best in (low, high) and errors[best] < HOPELESS and LOWEST <= beyond <= HIGHEST
    return beyond if goes_on else None
