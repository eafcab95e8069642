"""Finds and reads finished runs, and those that diverged."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import ConfigError
from common.json_text import read_json
from common.secrets import without_secrets
from seq2seq.comparison.classes import ClassScores, Confusion, read_classes, read_confusion, whole
from seq2seq.comparison.matters import relevant
from seq2seq.comparison.numbers import number, printable
from seq2seq.layout import CELLS, CONFIGURATION, DIVERGED, RESULTS

OWN_FILE = "file"  # the task of the users' own data
FILES = {"validation": "validation_file", "test": "test_file"}


@dataclass(frozen=True)
class TaskScores:
    """Scores of one run on one task.

    metrics: scores by metric, without the loss.
    majority: scores of always predicting the most frequent target, by metric.
    rows: number of rows that were scored; None if unknown.
    hash: of their sources and targets; None if unknown.
    published: whether the task is defined by this program, not by a file of the user.
    classes: scores by class; empty if there are none.
    confusion: which classes were taken for which; None if unknown.
    """

    metrics: dict[str, float]
    majority: dict[str, float]
    rows: int | None
    hash: str | None
    published: bool
    classes: dict[str, ClassScores]
    confusion: Confusion | None


@dataclass(frozen=True)
class Split:
    """Scores of one run on one split.

    tasks: scores by task; data of the user's own stand under their name.
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
    history: the values logged at each step; nan where the file has null.
    config: the keys of the resolved configuration that matter to the scores.
    read: the adapter keys that the method reads; None if unknown.
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
    read: frozenset[str] | None = None

    @property
    def divergence(self) -> str | None:
        """When the loss of this run stopped being finite, in one line; None if it did not."""
        wrong = [entry for entry in self.history if not math.isfinite(entry.get("loss", 0.0))]
        return _divergence(self.path, wrong[0].get("step"), "loss") if wrong else None


@dataclass
class Found:
    """The directories of runs.

    finished: those with results.
    diverged: one line about each run that ended because it diverged.
    unfinished: the number of the others.
    of_sweeps: the number of finished cells of sweeps, which are no runs of their own.
    """

    finished: list[Path] = field(default_factory=list)
    diverged: list[str] = field(default_factory=list)
    unfinished: int = 0
    of_sweeps: int = 0


def find_runs(paths: list[str]) -> Found:
    """Find the runs in and below `paths`, each once. Raises ConfigError if a path does not exist."""
    found, seen = Found(), set()
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
            cells = [*Path(directory, CELLS).glob(f"*/*/*_seed_*/{RESULTS}")] if CELLS in folders else []
            if cells:
                found.of_sweeps += len(cells)
                folders.remove(CELLS)
            if RESULTS in files and CONFIGURATION in files:
                found.finished.append(Path(directory))
            elif CONFIGURATION in files and DIVERGED in files:
                found.diverged.append(read_divergence(Path(directory)))
            elif CONFIGURATION in files:
                found.unfinished += 1
    return found


def read_divergence(directory: Path) -> str:
    """Return when the run in a directory diverged, in one line; of a damaged file, only that it did."""
    try:
        content = read_object(directory / DIVERGED)
    except ValueError:
        content = {}
    what = content.get("what")
    return _divergence(directory, content.get("step"), what.get("what") if isinstance(what, dict) else what)


def _divergence(directory: Path, step: object, what: object) -> str:
    when = f" at step {step:.0f}" if isinstance(step, int | float) and math.isfinite(step) else ""
    return f"{printable(directory)} diverged{when}: the {printable(what or 'loss')[:80]} is not finite"


def read_run(directory: Path) -> Run:
    """Read the run in a directory. Raises ValueError that names the file and what is wrong with it."""
    results, config = (read_object(directory / name) for name in (RESULTS, CONFIGURATION))
    try:
        # With a list of sizes the configuration is shared by several runs; the results say which one this is.
        own = {"experiment_name": results["experiment_name"], "low_resource": results.get("low_resource")}
        rows, counts = own["low_resource"], results["parameters"]
        if rows is not None and not 1 <= rows < math.inf:
            raise ValueError(f"low_resource is {rows}")
        for name in ("trainable", "backbone"):
            if not 0 <= counts[name] < math.inf:
                raise ValueError(f"parameters: {name} is {counts[name]}")
        capped = rows if rows is not None else config.get("max_train_samples")
        read = None if results.get("keys_read") is None else frozenset(map(str, results["keys_read"]))
        return Run(
            path=directory,
            name=printable(own["experiment_name"]),
            method=printable(results["method"]),
            seed=results.get("seed"),
            low_resource=None if capped is None else int(capped),
            trainable=int(counts["trainable"]),
            backbone=int(counts["backbone"]),
            seconds=number(results.get("seconds")),
            memory_mib=number(results.get("peak_memory_mib")),
            splits=read_splits(results["splits"], config),
            history=[read_entry(entry) for entry in results.get("history") or []],
            config=relevant(without_secrets({**config, **own}), read),
            read=read,
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{directory / RESULTS} is not in the current format of run_seq2seq.py: {what}") from None


def read_entry(entry: dict) -> dict[str, float]:
    """Read the numbers of a logged step; what no float32 can hold counts as infinite."""
    numbers = {name: number(value) for name, value in entry.items() if value is None or type(value) in (int, float)}
    if not 0 <= numbers.get("step", 0) < 2**53:
        raise ValueError(f"history: step is {numbers['step']}")
    return {name: value if abs(value) < 1e39 else value * math.inf for name, value in numbers.items()}


def read_object(path: Path) -> dict:
    """Read the object in a JSON file. Raises ValueError if the file cannot be read or holds anything else."""
    try:
        content = read_json(path)
    except ConfigError as error:
        reason = str(error).removeprefix(str(path)).removeprefix(" cannot be read:").strip()
        raise ValueError(f"{path} cannot be read: {reason}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return content


def read_splits(splits: dict, config: dict) -> dict[str, Split]:
    """Read the splits that have at least one metric besides the loss."""
    read = {}
    for name, entry in splits.items():
        tasks = {}
        for task, scores in entry["tasks"].items():
            shown = data_name(scores, name, config) if task == OWN_FILE else task
            if shown != task and shown in entry["tasks"]:  # the user's file is called like another task of the run
                shown = f"{shown} ({task})"
            tasks[printable(shown)] = read_task(task, scores)
        if any(scores.metrics for scores in tasks.values()):
            read[printable(name)] = Split(tasks, number(entry.get("average_metrics")))
    return read


def data_name(scores: dict, split: str, config: dict) -> str:
    """Return the name of the user's own data; for older results, which do not have it, the file that they are from."""
    given = (scores.get("data") or {}).get("name")
    file = config.get(FILES.get(split, "")) or config.get("train_file")
    return str(given or file or OWN_FILE)


def read_task(task: str, scores: dict) -> TaskScores:
    """Read the scores of one task."""
    hashed, rows = (scores.get("data") or {}).get("hash"), scores.get("rows")
    return TaskScores(
        metrics={printable(m): number(v) for m, v in scores["scores"].items() if m != "loss"},
        majority={printable(m): number(v) for m, v in (scores.get("majority") or {}).items()},
        rows=None if rows is None else whole(rows),
        hash=None if hashed is None else printable(hashed),
        published=task != OWN_FILE,
        classes=read_classes(scores.get("classes") or []),
        confusion=read_confusion(scores.get("confusion")),
    )
