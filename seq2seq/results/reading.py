"""Reads the finished cells of a sweep into the table that it has filled."""

import math
from collections import Counter
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from common.errors import ConfigError, type_and_line
from seq2seq.comparison.names import word
from seq2seq.comparison.numbers import number, printable
from seq2seq.comparison.words import count
from seq2seq.results.measured import Measured, Row
from seq2seq.sweeps.cells import CHOOSE, REPORT
from seq2seq.sweeps.choosing import score_of
from seq2seq.sweeps.records import read_records
from seq2seq.sweeps.specification import CELLS, entry_name

METRIC = "average_metrics"


def read_measured(path: Path, split: str) -> Measured:
    """Read the finished cells of a sweep.

    Raises ConfigError if there are none, if no row has a score on every task, if test rows differ, or for records in
    another format.
    """
    sweep, records = read_records(path)
    try:
        current = [record for record in records if not record.get("obsolete")]
        return replace(_measured(path, sweep, current, split), obsolete=len(records) - len(current))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} is not in the format of run_sweep.py: {type_and_line(error)}") from None


def _measured(path: Path, sweep: dict[str, Any], records: list[dict[str, Any]], split: str) -> Measured:
    reported = [record for record in records if record["stage"] == REPORT]
    scored = [record for record in reported if not math.isnan(score_of(record, METRIC, split))]
    if not scored:
        chosen = sum(record["stage"] == CHOOSE for record in records)
        more = f"; {chosen} cells to choose by are finished, let the sweep go on" if chosen and not reported else ""
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
    if not isinstance(sweep.get("keys") or {}, dict):
        raise TypeError("keys")
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
