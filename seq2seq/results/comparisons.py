"""Which rows differ: at equal parameters, and from those that cost no more."""

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations

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

    Only with one that trains on as many rows of data; of several as close with one that has the same values of the
    grid, and then with the best. Returns the differences, and the rows for which the other group has none within
    SAME_SIZE.
    """
    pairs, alone = [], []
    for row in measured.of(group):
        rows = measured.training_rows(row)
        partner = min(
            (each for each in measured.of(other) if each is not row and measured.training_rows(each) == rows),
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
def chances(measured: Measured) -> dict[tuple[str, str], float]:
    """The one-sided p-value of every pair of rows, by their names: small if the first scores higher than the second."""
    found = {}
    for row, other in combinations(measured.rows, 2):
        by = paired(row.scores, other.scores, row.steps, measured.scatter)
        if by is not None:
            higher = by.p / 2 if by.mean > 0 else 1 - by.p / 2
            found |= {(row.name, other.name): higher, (other.name, row.name): 1 - higher}
    return found


def outdone(measured: Measured, pairs: list[tuple[Row, Row]]) -> set[str]:
    """The names of the rows, first in their pair, whose rival scores higher by more than the seeds explain.

    Where no rival scores higher in truth, there are none in 95% of tables, however the pairs were chosen (Bonferroni).
    """
    found = chances(measured)
    return {row.name for row, rival in pairs if found.get((rival.name, row.name), 1.0) < LEVEL / len(pairs)}


def best_rows(measured: Measured) -> list[Row]:
    """The rows of which one is the best with 95% confidence, the highest first; all, if nothing is known.

    Each is compared with all others, so that the best one is kept: multiple comparisons with the best (Hsu 1984).
    """
    ranked = sorted(measured.rows, key=lambda row: -row.average.mean)
    return [row for row in ranked if not outdone(measured, [(row, other) for other in ranked if other is not row])]


def behind(measured: Measured) -> set[str]:
    """The names of the useful rows that another useful one with no more parameters outdoes."""
    pairs = [(row, other) for row, other in permutations(useful(measured.rows), 2) if other.trainable <= row.trainable]
    return outdone(measured, pairs)


def missed(measured: Measured) -> float:
    """How many half-intervals below the best a usual row is told apart every second time; nan if never."""
    if not any(measured.scatter.values()):
        return math.nan
    rivals = max(len(part.rows) for part in measured.parts.values()) - 1
    seeds = [len(measured.seeds)] * len(measured.tasks)
    freedom = degrees_of_freedom([*measured.scatter.values()], seeds)
    needed, shown = (stats.t.isf(level, freedom) for level in (LEVEL / max(1, rivals), LEVEL / 2))
    return float(math.sqrt(2) * needed / shown)
