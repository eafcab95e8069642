"""Intervals and tests over seeds, on several tasks at once.

The tasks are fixed, and stand for themselves alone; what varies are the seeds, and with them the training rows. The
mean over tasks has the variance of its parts, and the degrees of freedom of Welch and Satterthwaite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval; both ends are nan if they cannot be told, as from one seed.

    p: of the hypothesis that the mean is 0, two-sided; nan if it cannot be told.
    """

    mean: float
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


def estimate(values: Mapping[str, Sequence[float]], rounding: Mapping[str, float] | None = None) -> Estimate:
    """Estimate the mean over tasks of the mean over seeds.

    values: by task, one a seed.
    rounding: by task, the variance that values have because they are multiples of something, such as one test row. Of a
        few values that are equal by chance, it is all that is known of their scatter. None: they are not rounded.
    """
    parts = [np.asarray(each, dtype=float) for each in values.values()]
    if not parts or any(len(part) == 0 for part in parts):
        return Estimate(math.nan)
    mean = float(np.mean([part.mean() for part in parts]))
    if any(len(part) < 2 for part in parts):
        return Estimate(mean)
    least = [(rounding or {}).get(task, 0.0) for task in values]
    spread = [max(part.var(ddof=1), floor) / len(part) for part, floor in zip(parts, least, strict=True)]
    variances = np.array(spread) / len(parts) ** 2
    total = float(variances.sum())
    if total < 1e-20:  # all are equal: no scatter to judge by
        return Estimate(mean)
    freedom = total**2 / sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    error = math.sqrt(total)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def paired(
    first: Mapping[str, Mapping[int, float]],
    second: Mapping[str, Mapping[int, float]],
    steps: Mapping[str, float] | None = None,
) -> Estimate | None:
    """Estimate by how much the first scores higher, over the seeds of both; None if they share none on a task.

    first, second: score by task and seed.
    steps: by task, what one test row is worth.
    """
    shared = {
        task: [first[task][seed] - second[task][seed] for seed in sorted(first[task].keys() & second[task].keys())]
        for task in sorted(first.keys() & second.keys())
    }
    rounding = {task: step**2 / 6 for task, step in (steps or {}).items()}  # of the difference of two rounded numbers
    return estimate(shared, rounding) if shared and all(shared.values()) else None


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of tests (Holm 1979): below 0.05 together, all but 5% of the time."""
    known = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(ps), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted
