"""Scores by class: read from the results of runs, and put together over seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from seq2seq.comparison.numbers import Statistic, number, printable


@dataclass(frozen=True)
class ClassScores:
    """Scores of one run on one class, in percent.

    count: number of rows of the class.
    predicted: number of rows that are predicted to be of the class.
    """

    precision: float
    recall: float
    f1: float
    count: int
    predicted: int


@dataclass(frozen=True)
class Confusion:
    """Which classes are taken for which.

    labels: the L classes.
    counts: integers of shape (L, L + 1); row: the true class, column: the predicted one, last: no class.
    """

    labels: tuple[str, ...]
    counts: numpy.ndarray

    @property
    def rows(self) -> numpy.ndarray:
        """Number of rows of each class, of shape (L)."""
        return self.counts.sum(axis=1)

    def largest(self, most: int) -> "Confusion":
        """Keep at most `most` classes, the largest; the others become one, called "others"."""
        order = numpy.argsort(-self.rows, kind="stable")
        if len(order) <= most:
            return self._merged([[i] for i in order], [self.labels[i] for i in order])
        own, rest = order[: most - 1], list(order[most - 1 :])
        return self._merged([*([i] for i in own), rest], [*(self.labels[i] for i in own), f"{len(rest)} others"])

    def _merged(self, groups: list[list[int]], labels: list[str]) -> "Confusion":
        rows = numpy.stack([self.counts[group].sum(axis=0) for group in groups])
        columns = [rows[:, group].sum(axis=1) for group in groups]
        return Confusion(tuple(labels), numpy.stack([*columns, rows[:, -1]], axis=1))


@dataclass(frozen=True)
class ClassStatistics:
    """Scores on one class over seeds, in percent, and its number of rows."""

    precision: Statistic
    recall: Statistic
    f1: Statistic
    count: int


def read_classes(entries: list[dict]) -> dict[str, ClassScores]:
    """Read the scores by class from results.json."""
    return {
        printable(entry["label"]): ClassScores(
            *(number(entry[name]) for name in ("precision", "recall", "f1")),
            *(whole(entry[name]) for name in ("count", "predicted")),
        )
        for entry in entries
    }


def read_confusion(entry: dict | None) -> Confusion | None:
    """Read a confusion matrix from results.json. Raises ValueError unless it has L rows of L + 1 counts."""
    if not entry:
        return None
    labels = tuple(map(printable, entry["labels"]))
    rows = [[whole(cell) for cell in row] for row in entry["matrix"]]
    if len(set(labels)) < len(labels):
        raise ValueError("confusion: a label occurs twice")
    if not labels or len(rows) != len(labels) or any(len(row) != len(labels) + 1 for row in rows):
        raise ValueError(f"confusion: the matrix of {len(labels)} labels has another shape")
    return Confusion(labels, numpy.array(rows))


def whole(value: object) -> int:
    """Read a count. Raises ValueError unless it is a whole number from 0 to below 2**53."""
    count = number(value)
    if not (0 <= count < 2**53 and count.is_integer()):
        raise ValueError(f"{value} is not a count")
    return int(count)


def class_statistics(runs: Sequence[dict[str, ClassScores]]) -> dict[str, ClassStatistics]:
    """Put the scores of the runs of a configuration together, the largest class first."""
    counts: dict[str, int] = {}
    for scores in runs:
        for label, score in scores.items():
            counts.setdefault(label, score.count)
    return {
        label: ClassStatistics(
            *(
                Statistic.of(getattr(scores[label], name) for scores in runs if label in scores)
                for name in ("precision", "recall", "f1")
            ),
            counts[label],
        )
        for label in sorted(counts, key=lambda label: (-counts[label], label))
    }


def total(matrices: Sequence[Confusion]) -> Confusion | None:
    """Add the matrices of runs with the same classes in any order; None if there are none or their classes differ."""
    if not matrices or any(sorted(other.labels) != sorted(matrices[0].labels) for other in matrices):
        return None
    labels = matrices[0].labels
    summed = numpy.zeros_like(matrices[0].counts)
    for matrix in matrices:
        order = [matrix.labels.index(label) for label in labels]
        summed += matrix.counts[numpy.ix_(order, [*order, len(labels)])]
    return Confusion(labels, summed)
