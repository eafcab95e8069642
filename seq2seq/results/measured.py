"""The table that a sweep has filled: scores of every row on every task with every seed, and what they cost."""

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations, product
from pathlib import Path
from statistics import median
from typing import Any

from common.errors import ConfigError, type_and_line
from seq2seq.comparison.names import word
from seq2seq.comparison.numbers import number, printable
from seq2seq.comparison.words import count
from seq2seq.results.statistics import Estimate, difference_variance, estimate
from seq2seq.sweeps.cells import CHOOSE, REPORT
from seq2seq.sweeps.choosing import score_of
from seq2seq.sweeps.records import read_records
from seq2seq.sweeps.specification import CELLS, entry_name

METRIC = "average_metrics"
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
    missing: list[str]
    failed: list[str]
    machines: dict[str, int]

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(row.group for row in self.rows))

    def of(self, group: str) -> list[Row]:
        """The rows of a group."""
        return [row for row in self.rows if row.group == group]

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


def read_measured(path: Path, split: str) -> Measured:
    """Read the finished cells of a sweep.

    Raises ConfigError if there are none, if no row has a score on every task, if test rows differ, or for records in
    another format.
    """
    sweep, records = read_records(path)
    try:
        return _measured(path, sweep, [record for record in records if not record.get("obsolete")], split)
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not in the format of run_sweep.py: {type_and_line(error)}") from None


def _measured(path: Path, sweep: dict[str, Any], records: list[dict[str, Any]], split: str) -> Measured:
    reported = [record for record in records if record["stage"] == REPORT]
    scored = [record for record in reported if not math.isnan(score_of(record, METRIC, split))]
    if not scored:
        chosen = sum(record["stage"] == CHOOSE for record in records)
        more = f"; {chosen} cells to choose by are finished, start the sweep again" if chosen and not reported else ""
        raise ConfigError(f"{path} has no reported cell with scores on {split}{more}")
    _check_rows(scored, split, path)
    tasks = list(dict.fromkeys(record["task"] for record in scored))
    seeds = sorted({record["seed"] for record in scored})
    rows: dict[str, Row] = {}
    for record in scored:
        name = printable(record["row"])
        places = printable(record["entry"]), printable(record["group"]), record["grid"], record["method"]
        row = rows.setdefault(name, Row(name, *places, int(record["trainable"]), int(record["backbone"])))
        if record["seed"] in row.scores.get(record["task"], {}):
            raise ConfigError(f"{path} has two records of {name} on {record['task']} with seed {record['seed']}")
        row.trainable = max(row.trainable, int(record["trainable"]))  # what was chosen may differ by task
        row.scores.setdefault(record["task"], {})[record["seed"]] = score_of(record, METRIC, split)
        row.majority[record["task"]] = number(record["majority"][split])
        row.steps[record["task"]] = 100 / record["rows"][split]
        row.records.append(record)
    for record in records:
        if record["stage"] == CHOOSE and printable(record["row"]) in rows:
            rows[printable(record["row"])].choices.setdefault(record["task"], []).append(record)
    whole = [row for row in rows.values() if all(task in row.scores for task in tasks)]
    if not whole:
        raise ConfigError(f"{path}: no row has a score on every task yet ({', '.join(tasks)})")
    planned = {*seeds, *(sweep.get("seeds") or ())}
    partial = [row.name for row in rows.values() if any(len(row.scores.get(task, {})) < len(planned) for task in tasks)]
    failed = failed_rows([record for record in reported if "failed" in record])
    machines = Counter(str(record["machine"]) for record in scored)
    name = path.absolute().parent.name if path.name == CELLS else path.stem
    return Measured(
        name, _compared(sweep), whole, tasks, seeds, split, partial, missing_of(sweep, reported), failed, machines
    )


def failed_rows(records: list[dict[str, Any]]) -> list[str]:
    """Return a line about each row with runs that diverged."""
    by_row: dict[str, list[dict]] = {}
    for record in records:
        by_row.setdefault(printable(record["row"]), []).append(record)
    return [
        f"{name} ({count(len(found), 'run')}, such as {printable(found[0]['task'])}, seed {found[0]['seed']}: "
        f"{printable(found[0]['failed'])})"
        for name, found in by_row.items()
    ]


def missing_of(sweep: dict[str, Any], reported: list[dict[str, Any]]) -> list[str]:
    """Return what the sweep's file names and none of the records has: configurations, points of a grid, tasks."""
    points: dict[str, list[dict]] = {}
    for record in reported:
        points.setdefault(record["entry"], []).append(record["grid"])
    missing = []
    for item in sweep.get("configurations") or ():
        name, own = entry_name(item), item.get("grid") if isinstance(item, dict) else None
        if name not in points:
            missing.append(name)
            continue
        grid = {
            key: values
            for key, values in {**(sweep.get("grid") or {}), **(own or {})}.items()
            if key in points[name][0]
        }
        for values in product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            if point not in points[name]:
                missing.append(f"{name} ({', '.join(word(key, value) for key, value in point.items())})")
    tasks = len(sweep.get("tasks") or ()) - len({record["task"] for record in reported})
    return [*map(printable, missing), *([f"{tasks} of the tasks"] if tasks > 0 else [])]


def _compared(sweep: dict[str, Any]) -> dict[str, Any]:
    """Return the content of the sweep's file. Raises TypeError if what is read of it has another form."""
    for group, others in (sweep.get("compare") or {}).items():
        if not isinstance(others, list):
            raise TypeError(f"compare: {group}")
    for item in sweep.get("configurations") or ():
        if isinstance(item, dict) and not isinstance(item.get("keys") or {}, dict):
            raise TypeError(f"configurations: {entry_name(item)}")
    for name, scores in (sweep["published"]["scores"] if sweep.get("published") else {}).items():
        if not isinstance(scores, dict) or not all(isinstance(score, int | float) for score in scores.values()):
            raise TypeError(f"published: {name}")
    return sweep


def _check_rows(records: list[dict], split: str, path: Path) -> None:
    """Raise ConfigError if two cells of a task were scored on different rows, as their scores cannot be compared."""
    seen: dict[str, list] = {}
    for record in records:
        if seen.setdefault(record["task"], record["hash"][split]) != record["hash"][split]:
            raise ConfigError(
                f"{path}: the {split} rows of {record['task']} are not the same in all cells; {record['row']} differs"
            )
