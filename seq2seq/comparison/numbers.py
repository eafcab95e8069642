"""Numbers and texts as they come from the files of runs, and statistics over seeds."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation of `count` values; the deviation of a single value is NaN."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Statistic":
        values = numpy.array(list(values), dtype=float)
        with numpy.errstate(invalid="ignore"):
            deviation = values.std(ddof=1) if len(values) > 1 else math.nan
            return cls(float(values.mean()) if len(values) else math.nan, float(deviation), len(values))


def number(value) -> float:
    """Convert a JSON number to a float, and null to NaN. Raises TypeError for other values."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def rank(score: float) -> float:
    """Sort key that puts the highest score first and NaN last."""
    return math.inf if math.isnan(score) else -score


def printable(text: object) -> str:
    """Text in one line, without characters that are not allowed in XML."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
