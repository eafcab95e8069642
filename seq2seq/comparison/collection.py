"""Finished runs on disk: found and read."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError
from seq2seq import layout
from seq2seq.layout import CONFIGURATION, RESULTS

# Keys in which the runs of one configuration may differ.
INCIDENTAL = (*layout.INCIDENTAL, "seed", "seeds", "data_seed", "compute_time", "compute_memory")


@dataclass(frozen=True)
class TaskScores:
    """Scores of one run on one task; `metrics` and `majority` by metric, without the loss."""

    metrics: dict[str, float]
    majority: dict[str, float]


@dataclass(frozen=True)
class Split:
    """Scores of one run on one split."""

    tasks: dict[str, TaskScores]
    average: float


@dataclass(frozen=True)
class Run:
    """One finished run; `config` without the incidental keys."""

    path: Path
    name: str
    method: str
    seed: object
    low_resource: int | None
    trainable: int
    backbone: int
    seconds: float
    memory_mib: float
    splits: dict[str, Split]
    history: list[dict]
    config: dict = field(repr=False)


def find_runs(paths: list[str]) -> tuple[list[Path], int]:
    """Directories of finished runs in and below `paths`, each once, and the number of unfinished ones."""
    found, seen, unfinished = [], set(), 0
    for path in paths:
        if not os.path.exists(path):
            raise ConfigError(f"{path} does not exist")
        for directory, folders, files in os.walk(path, followlinks=True):
            real = os.path.realpath(directory)
            if real in seen:  # given twice, or a link to where we come from
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            if RESULTS in files and CONFIGURATION in files:
                found.append(Path(directory))
            elif CONFIGURATION in files:
                unfinished += 1
    return found, unfinished


def read_run(directory: Path) -> Run:
    """The run of a directory; raises ValueError with the file and what is wrong with it."""
    results, config = (read_object(directory / name) for name in (RESULTS, CONFIGURATION))
    try:
        # A list of sizes is one run after the other: the results tell which one this is.
        own = {"experiment_name": results["experiment_name"], "low_resource": results.get("low_resource")}
        rows, counts = own["low_resource"], results["parameters"]
        if rows is not None and rows < 1:
            raise ValueError(f"low_resource is {rows}")
        return Run(
            path=directory,
            name=printable(own["experiment_name"]),
            method=printable(results["method"]),
            seed=results.get("seed"),
            low_resource=None if rows is None else int(rows),
            trainable=int(counts["trainable"]),
            backbone=int(counts["backbone"]),
            seconds=number(results.get("seconds")),
            memory_mib=number(results.get("peak_memory_mib")),
            splits=read_splits(results["splits"]),
            history=[
                {name: float(value) for name, value in entry.items() if isinstance(value, int | float)}
                for entry in results.get("history") or []
            ],
            config={name: value for name, value in {**config, **own}.items() if name not in INCIDENTAL},
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{directory / RESULTS} is not as run_seq2seq.py writes it today: {what}") from None


def read_object(path: Path) -> dict:
    """The object in a JSON file; raises ValueError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object")
    return content


def read_splits(splits: dict) -> dict[str, Split]:
    """The splits with at least one metric; the loss is none."""
    read = {}
    for name, entry in splits.items():
        tasks = {
            printable(task): TaskScores(
                {printable(m): number(v) for m, v in scores["scores"].items() if m != "loss"},
                {printable(m): number(v) for m, v in (scores.get("majority") or {}).items()},
            )
            for task, scores in entry["tasks"].items()
        }
        if any(scores.metrics for scores in tasks.values()):
            read[printable(name)] = Split(tasks, number(entry.get("average_metrics")))
    return read


def number(value) -> float:
    """A JSON number as a float, null as NaN; raises TypeError for what is no number."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def printable(text: object) -> str:
    """On one line, and without the characters that no XML file may hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
