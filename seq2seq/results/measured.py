"""The table that a sweep has filled: scores of every row on every task with every seed, and what they cost."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common.errors import ConfigError
from seq2seq.results.statistics import Estimate, estimate
from seq2seq.sweeps.cells import CHOOSE, REPORT
from seq2seq.sweeps.choosing import score_of
from seq2seq.sweeps.records import read_records

METRIC = "average_metrics"


@dataclass
class Row:
    """A row of the table.

    name, entry, group, grid: see `seq2seq.sweeps.cells.Row`.
    method: what is trained.
    trainable, backbone: parameters.
    scores: on the split, by task and seed.
    majority: scores of always giving the most frequent answer, by task.
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
    records: list[dict] = field(default_factory=list)
    choices: dict[str, list[dict]] = field(default_factory=dict)

    def on(self, task: str) -> Estimate:
        """The score on a task."""
        return estimate({task: [*self.scores.get(task, {}).values()]})

    @property
    def average(self) -> Estimate:
        """The mean score over tasks."""
        return estimate({task: [*by_seed.values()] for task, by_seed in self.scores.items()})

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


@dataclass
class Measured:
    """A sweep.

    name: of its file.
    sweep: the content of its file.
    rows: those that have a score on every task.
    tasks: by name, in order.
    seeds: of the reported cells.
    split: whose scores these are.
    partial: names of rows that lack a task, or seeds of one.
    failed: one line about each cell that diverged.
    machines: what computed, with the number of cells.
    """

    name: str
    sweep: dict[str, Any]
    rows: list[Row]
    tasks: list[str]
    seeds: list[int]
    split: str
    partial: list[str]
    failed: list[str]
    machines: dict[str, int]

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(row.group for row in self.rows))

    def of(self, group: str) -> list[Row]:
        """The rows of a group."""
        return [row for row in self.rows if row.group == group]


def read_measured(path: Path, split: str) -> Measured:
    """Read the finished cells of a sweep. Raises ConfigError if there are none, or if their test rows differ."""
    sweep, records = read_records(path)
    reported = [record for record in records if record["stage"] == REPORT]
    scored = [record for record in reported if not math.isnan(score_of(record, METRIC, split))]
    if not scored:
        raise ConfigError(f"{path} has no reported cell with scores on {split}")
    _check_rows(scored, split, path)
    tasks = list(dict.fromkeys(record["task"] for record in scored))
    seeds = sorted({record["seed"] for record in scored})
    rows: dict[str, Row] = {}
    for record in scored:
        names = "row", "entry", "group", "grid", "method", "trainable", "backbone"
        row = rows.setdefault(record["row"], Row(*(record[name] for name in names)))
        row.scores.setdefault(record["task"], {})[record["seed"]] = score_of(record, METRIC, split)
        row.majority[record["task"]] = record["majority"][split]
        row.records.append(record)
    for record in records:
        if record["stage"] == CHOOSE and record["row"] in rows:
            rows[record["row"]].choices.setdefault(record["task"], []).append(record)
    whole = [row for row in rows.values() if all(task in row.scores for task in tasks)]
    partial = [row.name for row in rows.values() if any(len(row.scores.get(task, {})) < len(seeds) for task in tasks)]
    failed = [
        f"{record['row']}, {record['task']}, seed {record['seed']}: {record['failed']}"
        for record in reported
        if "failed" in record
    ]
    machines: dict[str, int] = {}
    for record in scored:
        machines[record["machine"]] = machines.get(record["machine"], 0) + 1
    return Measured(path.stem, sweep, whole, tasks, seeds, split, partial, failed, machines)


def _check_rows(records: list[dict], split: str, path: Path) -> None:
    """Raise ConfigError if two cells of a task were scored on different rows, as their scores cannot be compared."""
    seen: dict[str, list] = {}
    for record in records:
        if seen.setdefault(record["task"], record["hash"][split]) != record["hash"][split]:
            raise ConfigError(
                f"{path}: the {split} rows of {record['task']} are not the same in all cells; {record['row']} differs"
            )
