"""The tables of a section: scores and costs of its configurations, and their scores by class."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from seq2seq.comparison.numbers import Statistic
from seq2seq.comparison.sections import Section

MOST_COLUMNS = 8  # configurations in a table of classes
COSTS = ("seeds", "trainable", "% of backbone", "seconds", "MiB")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    text: what it shows.
    key: the number to sort by; None for text.
    best: whether it is the best of its row or column.
    """

    text: str
    key: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table.

    head: column headings.
    rows: cells by row.
    foot: a last row, which is not sorted; empty if there is none.
    caption: what it shows; empty if it needs no explanation.
    """

    head: list[str]
    rows: list[list[Cell]]
    foot: list[str] = field(default_factory=list)
    caption: str = ""


def table_of(section: Section) -> Table:
    """Build the table of a section: scores as mean ± deviation, with the best of each column marked, and costs."""
    configurations, columns = section.configurations, section.columns
    names = [task if [t for t, _ in columns].count(task) == 1 else f"{task} {metric}" for task, metric in columns]
    if len(columns) == 1:
        names = [" ".join(columns[0])]
    scores = [[c.score(*column) for column in columns] for c in configurations]
    majority = [section.majority(*column) for column in columns]
    if len(section.tasks) > 1:
        names.append("average")
        scores = [[*row, c.average] for row, c in zip(scores, configurations, strict=True)]
        majority.append(math.nan)
    best = [highest(column) for column in zip(*scores, strict=True)]
    several = any(c.first.low_resource is not None for c in configurations)
    rows = []
    for c, row in zip(configurations, scores, strict=True):
        counts = [number_cell(c.rows, ",.0f") if math.isfinite(c.rows) else Cell("all", math.inf)]
        rows.append(
            [Cell(c.family), Cell(c.first.method), *counts[:several]]
            + [score_cell(score, top) for score, top in zip(row, best, strict=True)]
            + [number_cell(len(c.runs), "d"), number_cell(c.first.trainable, ",d"), number_cell(c.percent, ".3f")]
            + [number_cell(c.mean_of("seconds"), ",.0f"), number_cell(c.mean_of("memory_mib"), ",.0f")]
        )
    known = ["" if math.isnan(score) else f"{score:.2f}" for score in majority]
    foot = ["majority class", *[""] * (1 + several), *known, *[""] * len(COSTS)] if any(known) else []
    return Table(["configuration", "method", *["training rows"][:several], *names, *COSTS], rows, foot)


def class_tables(section: Section) -> list[Table]:
    """Build a table for each task with scores by class: all scores of the best configuration, and F1 of the others."""
    tables = []
    shown = sorted(section.configurations, key=lambda c: c is not section.best)[:MOST_COLUMNS]
    for task in section.tasks:
        best, *others = (c.classes(task) for c in shown)
        if not best:
            continue
        rows = []
        for label, scores in best.items():
            f1 = [scores.f1, *(other[label].f1 if label in other else Statistic.of([]) for other in others)]
            cells = [score_cell(scores.precision), score_cell(scores.recall)]
            cells += [score_cell(score, highest(f1) if others else None) for score in f1]
            rows.append([Cell(label), number_cell(scores.count, ",d"), *cells])
        head = ["class", "rows", "precision", "recall", "F1", *(f"F1, {c.name}" for c in shown[1:])]
        caption = f"Scores by class on {task}, in percent: precision, recall and F1 of {shown[0].name}"
        if others:
            rest = "the others" if len(shown) == len(section.configurations) else "the next ones"
            caption += f", and F1 of {rest}; the best of each class is bold"
        tables.append(Table(head, rows, caption=f"{caption}."))
    return tables


def highest(scores: Sequence[Statistic]) -> float | None:
    """The highest mean; None if there is none."""
    return max((score.mean for score in scores if not math.isnan(score.mean)), default=None)


def score_cell(score: Statistic, best: float | None = None) -> Cell:
    return Cell(mean_text(score), score.mean, score.mean == best)


def mean_text(score: Statistic) -> str:
    """The mean with two decimals, followed by ± the deviation if there are several values."""
    if not score.count:
        return ""
    return f"{score.mean:.2f}" + (f" ± {score.deviation:.2f}" if score.count > 1 else "")


def number_cell(value: float, form: str) -> Cell:
    return Cell("" if isinstance(value, float) and math.isnan(value) else format(value, form), value)
