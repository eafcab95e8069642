"""Intervals and tests over seeds, on several tasks at once.

The tasks are fixed, and stand for themselves alone; what varies are the seeds, and with them the training rows. The
mean over tasks has the variance of its parts, and the degrees of freedom of Welch and Satterthwaite. Where one task
varies most, and by chance little in the few seeds of a pair, these are too many: a pair has at most those of the table.
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


def estimate(
    values: Mapping[str, Sequence[float]],
    rounding: Mapping[str, float] | None = None,
    scatter: Mapping[str, float] | None = None,
) -> Estimate:
    """Estimate the mean over tasks of the mean over seeds.

    values: by task, one a seed.
    rounding: by task, the variance that values have because they are multiples of something, such as one test row. Of a
        few values that are equal by chance, it is all that is known of their scatter. None: they are not rounded.
    scatter: by task, the variance over seeds that is usual for such values, which limits the degrees of freedom.
    """
    parts = [np.asarray(each, dtype=float) for each in values.values()]
    if not parts or any(len(part) == 0 for part in parts):
        return Estimate(math.nan)
    mean = float(np.mean([part.mean() for part in parts]))
    if any(len(part) < 2 for part in parts):
        return Estimate(mean)
    least = [(rounding or {}).get(task, 0.0) for task in values]
    variances = [max(part.var(ddof=1), floor) for part, floor in zip(parts, least, strict=True)]
    counts = [len(part) for part in parts]
    error = math.sqrt(sum(v / n for v, n in zip(variances, counts, strict=True))) / len(parts)
    if error < 1e-10:  # all are equal: no scatter to judge by
        return Estimate(mean)
    freedom = degrees_of_freedom(variances, counts)
    if scatter and any(scatter.values()):
        freedom = min(freedom, degrees_of_freedom([scatter[task] for task in values], counts))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    return Estimate(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, freedom)))


def degrees_of_freedom(variances: Sequence[float], counts: Sequence[int]) -> float:
    """Return those of a sum of means (Satterthwaite 1946), of samples with these variances and numbers of values."""
    parts = [v / n for v, n in zip(variances, counts, strict=True)]
    return sum(parts) ** 2 / sum(part**2 / (n - 1) for part, n in zip(parts, counts, strict=True))


def paired(
    first: Mapping[str, Mapping[int, float]],
    second: Mapping[str, Mapping[int, float]],
    steps: Mapping[str, float] | None = None,
    scatter: Mapping[str, float] | None = None,
) -> Estimate | None:
    """Estimate by how much the first scores higher, over the seeds of both; None if they share none on a task.

    first, second: score by task and seed.
    steps: by task, what one test row is worth.
    scatter: see `estimate`.
    """
    shared = {
        task: [first[task][seed] - second[task][seed] for seed in sorted(first[task].keys() & second[task].keys())]
        for task in sorted(first.keys() & second.keys())
    }
    rounding = {task: rounding_of_difference(step) for task, step in (steps or {}).items()}
    return estimate(shared, rounding, scatter) if shared and all(shared.values()) else None


def difference_variance(first: Mapping[int, float], second: Mapping[int, float], step: float) -> float:
    """Return the variance of the difference over the seeds of both, at least that of rounding; nan without two seeds.

    first, second: score by seed.
    step: what one test row is worth.
    """
    shared = [first[seed] - second[seed] for seed in first.keys() & second.keys()]
    return max(float(np.var(shared, ddof=1)), rounding_of_difference(step)) if len(shared) > 1 else math.nan


def rounding_of_difference(step: float) -> float:
    """Return the variance that the difference of two multiples of a step has because they are rounded."""
    return step**2 / 6


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of tests (Holm 1979): below 0.05 together, all but 5% of the time."""
    known = sorted((p, i) for i, p in enumerate(ps) if not math.isnan(p))
    adjusted, highest = [math.nan] * len(ps), 0.0
    for rank, (p, i) in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[i] = highest
    return adjusted
