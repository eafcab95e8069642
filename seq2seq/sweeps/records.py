"""What a sweep has found: one line of JSON for each finished cell, in a file that travels with the project."""

import json
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from common.errors import ConfigError
from common.files import read_bytes, without_infinities, write_file
from common.json_text import parse_json
from seq2seq.sweeps.cells import CHOOSE, Cell
from seq2seq.sweeps.work import Outcome

DIGITS = 4  # of a score in percent
PLACED = {"cell": str, "stage": str, "row": str, "task": str, "seed": int, "chosen": dict}
SCORED = PLACED | {"scores": dict, "average": dict, "trainable": int, "backbone": int, "threads": int, "machine": str}
SCORED |= dict.fromkeys(("seconds", "cpu_seconds", "memory_mib"), int | float)
REPORTED = {"grid": dict, "majority": dict, "rows": dict, "hash": dict, "history": list}
ENDS = "scores", "failed", "stopped"
LARGEST = 1e100  # score or loss; float32 ends at 3.4e38


class Records:
    """The finished cells of a sweep, by key; each is written as soon as it is known.

    The first line is {"sweep": the content of its file}, once a driver has begun. A record has: cell (the key), stage,
    row, entry, group, grid, task, seed, chosen, method, threads, machine, and one of
    failed: why it diverged, in a line;
    stopped: after how many evaluations a search stopped it, and its score then;
    scores: by split and metric. Then also average, by split, trainable, backbone, seconds, cpu_seconds (of all threads
        together) and memory_mib, and for a reported cell majority, rows and hash, by split, and history: [step, loss]
        of training, [step, null, score] on validation.
    obsolete is true in records of cells that the sweep does not have any more; they count again if it gets them back.
    """

    def __init__(self, path: Path):
        """Read the file, if there is one. Raises ConfigError for a damaged line, except for the last one."""
        self.path = path
        self.sweep, found = read_records(path) if path.exists() else ({}, [])
        self.by_key = {record["cell"]: record for record in found}
        self._whole = not path.exists() or path.read_bytes()[-1:] in (b"\n", b"")

    def add(self, record: dict[str, Any]) -> None:
        """Append a record. Raises ConfigError if the file cannot be written."""
        if not self._whole:  # the driver before was killed while it wrote
            self._write([self.sweep], self.by_key.values())
        self.by_key[record["cell"]] = record
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line_of(record))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(f"records: {self.path} cannot be written: {error.strerror}") from None

    def write(self, cells: Iterable[Cell], sweep: dict[str, Any]) -> None:
        """Write the file anew: the cells of the sweep, as it is now and in its order, and then the obsolete ones.

        sweep: the content of its file.
        """
        self.sweep = sweep
        current = [record for record in (self.named(cell, stopped=True) for cell in cells) if record is not None]
        known = {record["cell"] for record in current}
        obsolete = [{**record, "obsolete": True} for key, record in self.by_key.items() if key not in known]
        self._write([sweep], [*current, *obsolete])

    def named(self, cell: Cell, stopped: bool = False) -> dict[str, Any] | None:
        """Return the record of a cell, under the name that its row has now; None if it has not been run.

        stopped: True to count a run that a search has stopped.
        """
        record = self.by_key.get(cell.key)
        if record is None or "stopped" in record and not stopped:
            return None
        return {name: value for name, value in record.items() if name != "obsolete"} | _place(cell)

    def _write(self, sweeps: list[dict[str, Any]], records: Iterable[dict[str, Any]]) -> None:
        lines = [*(line_of({"sweep": sweep}) for sweep in sweeps), *map(line_of, records)]
        write_file(self.path, "".join(lines), key="records")
        self._whole = True


def read_records(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the content of the sweep's file, {} if it is not there yet, and the records.

    Raises ConfigError for a damaged line; the last one may be torn.
    """
    text = read_bytes(path).decode("utf-8-sig", errors="replace")
    *lines, rest = text.split("\n")  # texts may hold other line breaks
    sweep, found = {}, []
    for number, line in enumerate([*lines, rest] if rest else lines, 1):
        try:
            record = parse_json(line, f"{path}, line {number}")
            if number == 1 and isinstance(record, dict) and isinstance(record.get("sweep"), dict):
                sweep = record["sweep"]
                continue
            _check_record(record, f"{path}, line {number}")
        except ConfigError:
            if lines and number > len(lines):
                break  # the driver was killed while it wrote
            raise
        found.append(record)
    return sweep, found


def _check_record(record: Any, place: str) -> None:
    """Raise ConfigError unless this is a record of a cell."""
    if not isinstance(record, dict):
        raise ConfigError(f"{place} is no record of a cell")
    if not any(name in record for name in ENDS):
        raise ConfigError(f"{place} is no record of a cell; it has none of {', '.join(ENDS)}")
    kinds = PLACED if "scores" not in record else SCORED if record.get("stage") == CHOOSE else SCORED | REPORTED
    wrong = [name for name, kind in kinds.items() if not isinstance(record.get(name), kind)]
    counts = "seed", "trainable", "backbone"
    wrong += [name for name in counts if name in kinds and not is_count(record.get(name))]
    if not wrong and "scores" in record:
        wrong = [] if _are_numbers(record["average"]) else ["average"]
        wrong += [f"scores on {split}" for split, each in record["scores"].items() if not _are_numbers(each)]
        wrong += [] if all(map(_is_logged, record.get("history", ()))) else ["history"]
    if wrong:
        raise ConfigError(f"{place} is no record of a cell; look at {wrong[0]}")


def is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_numbers(found: Any) -> bool:
    return isinstance(found, dict) and all(map(_is_number_or_none, found.values()))


def _is_number_or_none(value: Any) -> bool:
    return value is None or type(value) in (int, float) and abs(value) < LARGEST


def _is_logged(item: Any) -> bool:
    """Return True for [step, loss] and [step, null, score]."""
    return isinstance(item, list) and len(item) > 1 and is_count(item[0]) and all(map(_is_number_or_none, item))


def line_of(record: dict[str, Any]) -> str:
    return json.dumps(without_infinities(record), separators=(",", ":"), ensure_ascii=False) + "\n"


def record_of(cell: Cell, results: dict[str, Any], threads: int) -> dict[str, Any]:
    """Return the record of a cell with results."""
    splits = results["splits"]
    record = {
        **_place(cell),
        "trainable": results["parameters"]["trainable"],
        "backbone": results["parameters"]["backbone"],
        "seconds": round(results["seconds"], 1),
        "cpu_seconds": round(results["cpu_seconds"], 1),
        "memory_mib": round(results["peak_memory_mib"]),
        "threads": threads,
        "machine": machine(),
        "scores": {split: _scores(entry) for split, entry in splits.items()},
        "average": {split: _rounded(entry.get("average_metrics")) for split, entry in splits.items()},
    }
    if cell.stage == CHOOSE:
        return record
    tasks = {split: list(entry["tasks"].values()) for split, entry in splits.items()}
    return record | {
        "majority": {split: _rounded(_mean_majority(each)) for split, each in tasks.items()},
        "rows": {split: sum(task["rows"] for task in each) for split, each in tasks.items()},
        "hash": {split: [task["data"]["hash"] for task in each] for split, each in tasks.items()},
        "history": _history(results["history"]),
    }


def record_of_outcome(outcome: Outcome, threads: int) -> dict[str, Any] | None:
    """Return the record of how a cell has ended; None if it might end otherwise the next time."""
    if outcome.results is not None:
        return record_of(outcome.cell, outcome.results, threads)
    if outcome.diverged:
        return {**_place(outcome.cell), "threads": threads, "machine": machine(), "failed": outcome.error}
    return None


def record_of_stop(cell: Cell, evaluations: int, score: float | None, threads: int) -> dict[str, Any]:
    """Return the record of a cell that a search has stopped, with its last score on validation, higher for better."""
    found = {"evaluations": evaluations, "score": _rounded(score)}
    return {**_place(cell), "threads": threads, "machine": machine(), "stopped": found}


def _place(cell: Cell) -> dict[str, Any]:
    return {
        "cell": cell.key,
        "stage": cell.stage,
        "row": cell.row.name,
        "entry": cell.row.entry,
        "group": cell.row.group,
        "grid": cell.row.grid,
        "task": cell.task,
        "seed": cell.seed,
        "chosen": cell.chosen,
        "method": cell.method,
    }


def _scores(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the scores of a split by metric; of several tasks as task/metric."""
    tasks = entry["tasks"]
    return {
        metric if len(tasks) == 1 else f"{task}/{metric}": _rounded(score)
        for task, each in tasks.items()
        for metric, score in each["scores"].items()
    }


def _mean_majority(tasks: list[dict]) -> float | None:
    """Return the average_metrics of always giving the most frequent answer."""
    means = [sum(task["majority"].values()) / len(task["majority"]) for task in tasks if task["majority"]]
    return sum(means) / len(means) if means else None


def _history(log: list[dict]) -> list[list]:
    """Return the losses of training, and the scores on validation, by step."""
    found = []
    for entry in log:
        if "loss" in entry:
            found.append([entry["step"], _rounded(entry["loss"])])
        elif "eval_average_metrics" in entry:
            found.append([entry["step"], None, _rounded(entry["eval_average_metrics"])])
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


@cache
def machine() -> str:
    """Return what computes: the GPU, or the make of the CPU, and torch's version."""
    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, torch {torch.__version__}"
    return f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
