"""Finds and reads finished runs."""

import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError
from seq2seq import layout
from seq2seq.layout import CONFIGURATION, RESULTS

# Keys in which runs of the same configuration may differ.
INCIDENTAL = (*layout.INCIDENTAL, "seed", "seeds", "data_seed", "compute_time", "compute_memory")


@dataclass(frozen=True)
class TaskScores:
    """Scores of one run on one task.

    metrics: scores by metric, without the loss.
    majority: scores of always predicting the most frequent target, by metric.
    """

    metrics: dict[str, float]
    majority: dict[str, float]


@dataclass(frozen=True)
class Split:
    """Scores of one run on one split.

    tasks: scores by task.
    average: mean over tasks of each task's mean metric.
    """

    tasks: dict[str, TaskScores]
    average: float


@dataclass(frozen=True)
class Run:
    """A finished run.

    path: output directory.
    name: experiment_name.
    method: description of the method.
    seed: seed of the run.
    low_resource: number of training rows; None: all.
    trainable: number of trainable parameters.
    backbone: number of parameters of the backbone.
    seconds: duration; NaN if unknown.
    memory_mib: peak memory; NaN if unknown.
    splits: scores by split.
    history: the values logged at each step.
    config: the resolved configuration without the incidental keys.
    """

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
    """Find the directories of finished runs in and below `paths`, each once, and count the unfinished runs.

    Raises ConfigError if a path does not exist.
    """
    found, seen, unfinished = [], set(), 0
    for path in paths:
        if not os.path.exists(path):
            raise ConfigError(f"{path} does not exist")
        for directory, folders, files in os.walk(path, followlinks=True):
            real = os.path.realpath(directory)
            if real in seen:  # given twice, or reached again through a link
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
    """Read the run in a directory. Raises ValueError that names the file and what is wrong with it."""
    results, config = (read_object(directory / name) for name in (RESULTS, CONFIGURATION))
    try:
        # With a list of sizes the configuration is shared by several runs; the results say which one this is.
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
        raise ValueError(f"{directory / RESULTS} is not in the current format of run_seq2seq.py: {what}") from None


def read_object(path: Path) -> dict:
    """Read the object in a JSON file. Raises ValueError if the file cannot be read or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return content


def read_splits(splits: dict) -> dict[str, Split]:
    """Read the splits that have at least one metric besides the loss."""
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
    """Convert a JSON number to a float, and null to NaN. Raises TypeError for other values."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def printable(text: object) -> str:
    """Text in one line, without characters that are not allowed in XML."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
