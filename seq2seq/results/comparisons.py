"""Which rows differ: at equal parameters, and from those that cost no more."""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

from scipy import stats

from seq2seq.results.measured import Measured, Row
from seq2seq.results.statistics import CONFIDENCE, Estimate, degrees_of_freedom, holm, paired

SAME_SIZE = 1.25  # the largest ratio of parameters that count as equal
LEVEL = 1 - CONFIDENCE


@dataclass(frozen=True)
class Difference:
    """By how much a row scores higher than another on the same tasks and seeds.

    p: adjusted for all tests of its family (Holm).
    """

    row: Row
    other: Row
    by: Estimate
    p: float

    @property
    def decided(self) -> bool:
        return self.p < LEVEL

    @property
    def verdict(self) -> str:
        if not self.decided:
            return "undecided"
        return "better" if self.by.mean > 0 else "worse"


def differences(measured: Measured, pairs: list[tuple[Row, Row]]) -> list[Difference]:
    """Compare pairs of rows, as one family of tests."""
    found = [(row, other, paired(row.scores, other.scores, row.steps, measured.scatter)) for row, other in pairs]
    known = [(row, other, by) for row, other, by in found if by is not None]
    adjusted = holm([by.p for _, _, by in known])
    return [Difference(*each, p) for each, p in zip(known, adjusted, strict=True)]


def at_equal_size(measured: Measured, group: str, other: str) -> tuple[list[Difference], list[Row]]:
    """Compare each row of a group with the row of another group that is closest in parameters.

    Of several as close, with one that has the same values of the grid, such as low_resource, and then with the best.
    Returns the differences, and the rows for which the other group has none within SAME_SIZE.
    """
    pairs, alone = [], []
    for row in measured.of(group):
        partner = min(
            (each for each in measured.of(other) if each is not row),
            key=lambda each: (ratio(row, each), unlike(row, each), -each.average.mean),
            default=None,
        )
        if partner is None or ratio(row, partner) > SAME_SIZE:
            alone.append(row)
        else:
            pairs.append((row, partner))
    return differences(measured, pairs), alone


def ratio(row: Row, other: Row) -> float:
    """The ratio of the parameters of two rows, at least 1."""
    low, high = sorted((max(1, row.trainable), max(1, other.trainable)))
    return high / low


def unlike(row: Row, other: Row) -> int:
    """How many keys of both grids have different values."""
    return sum(row.grid[name] != other.grid[name] for name in row.grid.keys() & other.grid.keys())


def measurable(rows: list[Row]) -> list[Row]:
    """The rows whose parameters are those of a T5; those of other classifiers are no measure of what these cost."""
    return [row for row in rows if row.backbone]


def useful(rows: list[Row]) -> list[Row]:
    """The measurable rows whose mean score is above always giving the most frequent answer."""
    return [row for row in measurable(rows) if not row.average.mean <= row.most_frequent]


def frontier(rows: list[Row]) -> list[Row]:
    """The rows whose mean score no measurable row with as few parameters reaches, by size.

    It begins above always giving the most frequent answer, which takes no parameters.
    """
    found: list[Row] = []
    for row in sorted(useful(rows), key=lambda row: (row.trainable, -row.average.mean)):
        if not found or row.average.mean > found[-1].average.mean:
            found.append(row)
    return found


@lru_cache(maxsize=16)
def decided(measured: Measured) -> list[Difference]:
    """The pairs of rows that differ by more than the seeds explain, the higher one first.

    All pairs are one family: which rows are looked at, as the best or on the frontier, is known only after looking.
    """
    ranked = sorted(measured.rows, key=lambda row: -row.average.mean)
    return [each for each in differences(measured, [*combinations(ranked, 2)]) if each.decided]


def behind(measured: Measured) -> set[str]:
    """The names of the useful rows that are worse than another useful one with no more parameters."""
    rows = {row.name for row in useful(measured.rows)}
    return {
        each.other.name
        for each in decided(measured)
        if {each.row.name, each.other.name} <= rows and each.row.trainable <= each.other.trainable
    }


def missed(measured: Measured) -> float:
    """How many half-intervals two usual rows must be apart for an even chance to be decided; nan if none could be."""
    if not any(measured.scatter.values()) or len(measured.rows) < 2:
        return math.nan
    seeds = [len(measured.seeds)] * len(measured.tasks)
    freedom = degrees_of_freedom([*measured.scatter.values()], seeds)
    needed, shown = (stats.t.isf(level / 2, freedom) for level in (LEVEL / math.comb(len(measured.rows), 2), LEVEL))
    return float(math.sqrt(2) * needed / shown)
