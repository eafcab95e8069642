"""The table that a sweep has filled: scores of every row on every task with every seed, and what they cost."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from statistics import median
from typing import Any

from seq2seq.results.statistics import Estimate, difference_variance, estimate
from seq2seq.sweeps.specification import entry_name

TRAINING_ROWS = "low_resource"
OWN = "their own number of"


@dataclass
class Row:
    """A row of the table.

    name, entry, group, grid: see `seq2seq.sweeps.cells.Row`.
    method: what is trained.
    trainable, backbone: parameters; of several sizes the largest.
    scores: on the split, by task and seed.
    majority: scores of always giving the most frequent answer, by task; nan if unknown.
    steps: what one test row is worth, by task.
    records: of the reported cells.
    choices: records of the cells to choose by, by task.
    """

    name: str
    entry: str
    group: str
    grid: dict[str, Any]
    method: str
    trainable: int
    backbone: int
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    majority: dict[str, float] = field(default_factory=dict)
    steps: dict[str, float] = field(default_factory=dict)
    records: list[dict] = field(default_factory=list)
    choices: dict[str, list[dict]] = field(default_factory=dict)

    def on(self, task: str) -> Estimate:
        """The score on a task."""
        return estimate({task: [*self.scores.get(task, {}).values()]}, self._rounding)

    @property
    def average(self) -> Estimate:
        """The mean score over tasks."""
        return estimate({task: [*by_seed.values()] for task, by_seed in self.scores.items()}, self._rounding)

    @property
    def most_frequent(self) -> float:
        """The average score of always giving the most frequent answer; nan if unknown."""
        return sum(self.majority.values()) / len(self.majority)

    @property
    def _rounding(self) -> dict[str, float]:
        return {task: step**2 / 12 for task, step in self.steps.items()}  # of a rounded number

    @property
    def minutes(self) -> float:
        """Processor minutes of a run, the median over seeds, on average over tasks."""
        return self._cost("cpu_seconds") / 60

    @property
    def memory(self) -> float:
        """Peak memory of a run in MiB, the median over seeds, on average over tasks."""
        return self._cost("memory_mib")

    @property
    def percent(self) -> float:
        return 100 * self.trainable / self.backbone if self.backbone else math.nan

    def chosen(self, task: str) -> dict[str, Any]:
        """The values that were chosen on validation for a task."""
        return next((record["chosen"] for record in self.records if record["task"] == task), {})

    def _cost(self, name: str) -> float:
        by_task: dict[str, list[float]] = {}
        for record in self.records:
            if name in record:
                by_task.setdefault(record["task"], []).append(record[name])
        return sum(map(median, by_task.values())) / len(by_task) if by_task else math.nan


@dataclass(eq=False)
class Measured:
    """A sweep.

    name: of its file, or of the directory of its records.
    sweep: the content of its file.
    rows: those that have a score on every task.
    tasks: by name, in order.
    seeds: of the reported cells.
    split: whose scores these are.
    partial: names of rows that lack a task, or seeds of one.
    missing: what the sweep's file names and no reported run has.
    failed: one line about each row with runs that diverged.
    machines: what computed, with the number of cells.
    obsolete: the number of finished cells that the sweep's file has no more.
    """

    name: str
    sweep: dict[str, Any]
    rows: list[Row]
    tasks: list[str]
    seeds: list[int]
    split: str
    partial: list[str]
    missing: list[str]
    failed: list[str]
    machines: dict[str, int]
    obsolete: int = 0

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(row.group for row in self.rows))

    def of(self, group: str) -> list[Row]:
        """The rows of a group."""
        return [row for row in self.rows if row.group == group]

    @property
    def tested(self) -> dict[str, int]:
        """The number of rows that were scored, by task."""
        return {task: round(100 / self.rows[0].steps[task]) for task in self.tasks}

    @cached_property
    def scatter(self) -> dict[str, float]:
        """The variance over seeds of the difference of two rows, the median over pairs, by task; {} if unknown."""
        known: dict[str, list[float]] = {}
        for row, other in combinations(self.rows, 2):
            for task in self.tasks:
                found = difference_variance(row.scores[task], other.scores[task], row.steps[task])
                if not math.isnan(found):
                    known.setdefault(task, []).append(found)
        return {task: median(each) for task, each in known.items()} if len(known) == len(self.tasks) else {}

    @cached_property
    def parts(self) -> dict[str, "Measured"]:
        """The table by the number of training rows, in words, the fewest first; without words if it is the same."""
        if len({str(self.training_rows(row)) for row in self.rows}) == 1:
            return {"": self}
        parts: dict[str, list[Row]] = {}
        for row in sorted(self.rows, key=lambda row: number_or_most(self.training_rows(row))):
            parts.setdefault(training_words(self.training_rows(row)), []).append(row)
        return {words: replace(self, rows=rows) for words, rows in parts.items()}

    def training_rows(self, row: Row) -> Any:
        """The number of rows of data that a row trains on; None for all, OWN if only its configuration's file says."""
        items = [item for item in self.sweep.get("configurations") or () if entry_name(item) == row.entry]
        own = [item.get("keys") or {} for item in items if isinstance(item, dict)]
        given = [row.grid, *own, self.sweep.get("keys") or {}]
        return next((keys[TRAINING_ROWS] for keys in given if TRAINING_ROWS in keys), OWN)


def training_words(rows: Any) -> str:
    if rows is None:
        return "all training rows"
    return f"{rows:,} training rows" if type(rows) is int else f"{rows} training rows"


def number_or_most(rows: Any) -> float:
    return rows if type(rows) is int else math.inf
