"""The file of a sweep: which configurations, tasks, seeds and values; checked before anything runs."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from common.errors import ConfigError, require
from common.json_settings import check_keys, read_file, read_overrides
from common.keys import REQUIRED, key, key_fields, key_types
from seq2seq.sweeps.checks import check_grid, check_own, is_finite_number
from seq2seq.sweeps.spaces import check_space

PROGRAM = "run_sweep.py"
CELLS = "cells.jsonl"
OTHERS = "others"  # the group of configurations that name none
LIKE, TAKEN = "like", ("tasks", "seeds", "keys", "choose")
# Keys that say how and where cells are run, not which.
OF_A_SITTING = {
    *("output_dir", "records", "keep_models", "launch", "workers", "ray"),
    *("hours", "cell_hours", "dry_run", "verify"),
}


@dataclass
class Choice:
    """How values are chosen on the validation split before the runs that are reported."""

    space: dict = key(
        REQUIRED,
        'Keys and the values to choose from: a list, or {"uniform": [low, high]}, {"log_uniform": [low, high]} or '
        '{"integer": [low, high]}.',
    )
    metric: str = key(REQUIRED, 'Score on the validation split that decides: a metric, "average_metrics" or "loss".')
    trials: int | None = key(None, "Number of random draws from the space; null: every combination, which needs lists.")
    seed: int | None = key(None, "Seed of the runs to choose by, and of the draws; null: the first of seeds.")
    keys: dict | None = key(None, "Keys of these runs only, such as fewer training rows; null: as those reported.")

    def __post_init__(self) -> None:
        require(self, "at least 1", "trials")
        require(self, "at least 0 and below 2**32", "seed")
        check_space(self.space, self.trials)


@dataclass
class Entry:
    """One item of `configurations`; an item that is a string is a file or a method."""

    name: str | None = key(None, "Name in tables; null: the file's, the method's or the baseline's.")
    group: str | None = key(None, "Group of configurations that it is shown with; see compare. null: others.")
    file: str | None = key(None, "Configuration of run_seq2seq.py; null: a run with the keys alone.")
    keys: dict | None = key(None, "Keys on top of the file's.")
    grid: dict | None = key(None, "Keys with lists of values; each combination is a row of its own.")
    space: dict | None = key(None, "Replaces keys of choose.space; a key with null is not chosen.")
    baseline: str | None = key(None, "A classifier without T5 instead of a run: tf_idf.")


@dataclass
class Sweep:
    """A sweep; each of its cells is one run of run_seq2seq.py."""

    configurations: list[str | dict] = key(
        REQUIRED,
        "What to compare: files of run_seq2seq.py, methods of the registry, or objects with name, file, keys, grid and "
        "space, or name and baseline.",
    )
    tasks: list[str | dict] = key(
        REQUIRED, 'Tasks, or objects of keys: {"task_name": "file", "train_file": "tickets.csv", ..}.'
    )
    seeds: list[int] = key(REQUIRED, "Seeds of the reported runs.")
    like: str | None = key(
        None, "File of another sweep, from which tasks, seeds, keys and choose are taken where this one has none."
    )
    keys: dict | None = key(None, "Keys of all runs, on top of those of the files; null: none.")
    grid: dict | None = key(
        None, "Keys with lists of values, for all configurations that read them; each combination is a row of its own."
    )
    choose: dict | None = key(
        None, "What is chosen on the validation split before the reported runs: space, metric, trials, seed and keys."
    )
    compare: dict | None = key(
        None,
        'Which groups report.py compares at equal parameters: {"tensor trains": ["LoRA", "bottleneck adapters"]} '
        "compares each configuration of the first with those of the others; null: none.",
    )
    published: dict | None = key(
        None,
        'Scores of others that report.py shows beside ours: {"source": "..", "scores": {"LoRA": {"cola": 63.2, ..}, '
        "..}}, by name of the configuration and task, as the mean of a task's metrics; null: none.",
    )
    output_dir: str | None = key(None, "Output directory; null: outputs/sweeps/ and the name of the file.")
    records: str | None = key(
        None, "File of the finished cells, one line of JSON each; null: cells.jsonl in output_dir."
    )
    keep_models: bool = key(
        False, "Keep the trained models and the predictions of the reported runs; false: their scores and logs only."
    )
    launch: str | None = key(
        None,
        'Program that starts a run in several processes, such as "accelerate launch --num_processes 2"; null: one '
        "process each.",
    )
    cpus: int = key(1, "Threads of a run, and CPUs that Ray reserves for it.")
    gpus: float | None = key(
        None, "GPUs of a run; with ray, a fraction lets several share one. null: 1 if this machine has one, else 0."
    )
    workers: int | None = key(
        None, "Runs side by side; null: as many as the CPUs, or the GPUs, suffice for (with Ray: as it schedules)."
    )
    ray: str | None = key(
        None, 'Run on Ray: "local", "auto", or the address of a cluster whose machines have this clone at this path.'
    )
    search: bool = key(
        False, "With choose: stop bad values early, by ASHA of Ray Tune, after each evaluation on validation."
    )
    hours: float | None = key(None, "Stop after this time; the same command goes on. null: no limit.")
    cell_hours: float | None = key(None, "Longest time of a run, which then counts as failed; null: no limit.")
    dry_run: bool = key(False, "Print the cells with their parameters and the expected time, and run nothing.")
    verify: int | None = key(None, "Run this many finished cells again, drawn at random, and compare their scores.")

    def __post_init__(self) -> None:
        for name in ("configurations", "tasks", "seeds"):
            values = getattr(self, name)
            if not values:
                raise ConfigError(f"{name} is an empty list; it must name at least one")
            repeated = [value for i, value in enumerate(values) if value in values[:i]]
            if repeated:
                raise ConfigError(f"{name} contains {json.dumps(repeated[0])} twice; name each once")
        require(self, "at least 1", "cpus", "workers", "verify")
        require(self, "at least 0", "gpus")
        require(self, "above 0", "hours", "cell_hours")
        if self.ray is not None and not self.ray.strip():
            raise ConfigError('ray is empty; it must be "local", "auto", an address, or null')
        require(self, "at least 0 and below 2**32", "seeds")
        for name in ("keys", "grid"):
            check_own(getattr(self, name), name)
        check_grid(self.grid, "grid")
        if self.search and self.choose is None:
            raise ConfigError("search is true, but choose is not set; it must name a space and a metric")
        self.choice = None if self.choose is None else made(Choice, self.choose, "choose")
        if self.choice is not None:
            check_own(self.choice.keys, "choose.keys")
            if "do_eval" in (self.choice.keys or {}):
                raise ConfigError("choose.keys sets do_eval, without which nothing could be chosen; remove it")
            check_own(self.choice.space, "choose.space")
        self.entries: list[Entry] = [entry_of(item, number) for number, item in enumerate(self.configurations, 1)]
        self._check_spaces()
        self._check_compared()
        self._check_published()
        self._check_launch()

    def _check_spaces(self) -> None:
        """Raise ConfigError if there is nothing to choose from, or for a space of an entry that cannot be."""
        if self.choice is not None and not self.choice.space and not any(entry.space for entry in self.entries):
            raise ConfigError("choose.space is empty; it must name a key with its values, or set choose to null")
        for entry in self.entries:
            own = {name: values for name, values in (entry.space or {}).items() if values is not None}
            if own and self.choice is None:
                raise ConfigError(f"{entry.name} has a space, but choose is not set; it must name a space and a metric")
            if own:
                check_space(own, self.choice.trials)

    def _check_launch(self) -> None:
        """Raise ConfigError unless `launch` can be split into words."""
        try:
            words = None if self.launch is None else shlex.split(self.launch)
        except ValueError as error:
            raise ConfigError(f"launch is {self.launch!r}: {error}") from None
        if words == []:
            raise ConfigError("launch is empty; it must be a command, or null")

    def _check_compared(self) -> None:
        """Raise ConfigError unless `compare` names groups of the sweep."""
        groups = {entry.group or OTHERS for entry in self.entries}
        for group, others in (self.compare or {}).items():
            if not isinstance(others, list) or not others or not all(isinstance(name, str) for name in others):
                raise ConfigError(f"compare: {group!r} is {json.dumps(others)}; it must be a list of groups")
            for name in (group, *others):
                if name not in groups:
                    raise ConfigError(
                        f"compare names the group {name!r}, which no configuration has; change it, or set it to null"
                    )

    def _check_published(self) -> None:
        """Raise ConfigError unless `published` has a source, and numbers by configuration and task."""
        if self.published is None:
            return
        scores = self.published.get("scores")
        rows = scores.values() if isinstance(scores, dict) else [None]
        numbers = all(isinstance(row, dict) and all(map(is_finite_number, row.values())) for row in rows)
        known = self.published.keys() == {"source", "scores"} and isinstance(self.published["source"], str)
        if not known or not numbers:
            raise ConfigError('published must be {"source": "..", "scores": {configuration: {task: number}}}')


def load_sweep(path: str, overrides: list[str]) -> Sweep:
    """Return the sweep of a JSON file with `--key value` overrides. Raises ConfigError."""
    types = key_types(Sweep)
    values = {**read_file(path), **read_overrides(overrides, types)}
    if isinstance(values.get(LIKE), str):
        other = read_file(values[LIKE])
        if LIKE in other:
            raise ConfigError(f"like is {values[LIKE]}, which is itself like {other[LIKE]}; name a file that sets all")
        del values[LIKE]
        values = {**{name: other[name] for name in TAKEN if name in other}, **values}
    sweep = made(Sweep, values, path)
    sweep.output_dir = sweep.output_dir or str(Path("outputs", "sweeps", Path(path).stem))
    sweep.records = sweep.records or str(Path(sweep.output_dir, CELLS))
    sweep.content = {name: value for name, value in values.items() if name not in OF_A_SITTING}
    return sweep


def made(cls: type, values: Mapping[str, Any], place: str) -> Any:
    """Return an object of one of these classes. Raises ConfigError for unknown, wrong or missing keys."""
    inside = "" if cls is Sweep else f"{place}: "
    try:
        check_keys(values, key_types(cls), PROGRAM)
    except ConfigError as error:
        raise ConfigError(f"{inside}{error}") from None
    for f in key_fields(cls):
        if f.default is REQUIRED and f.name not in values:
            raise ConfigError(f"{place} does not set {f.name}, which is required: {f.metadata['help']}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{inside}{error}") from None


def entry_of(item: str | dict, number: int) -> Entry:
    """Return an item of `configurations` with its name. Raises ConfigError."""
    from seq2seq.sweeps.methods import keys_of_method

    place = f"configurations, item {number}"
    if isinstance(item, str):
        item = {"file": item} if item.endswith(".json") else {"name": item, "keys": keys_of_method(item)}
    entry = made(Entry, item, place)
    if entry.baseline is not None:
        allowed = "name", "group", "grid", "baseline"
        others = [f.name for f in fields(Entry) if f.name not in allowed and getattr(entry, f.name)]
        if others:
            raise ConfigError(f"{place}: a baseline has no {others[0]}; remove it")
    elif entry.file is None and entry.keys is None:
        raise ConfigError(f"{place} has neither a file nor keys; set one of them, or baseline")
    entry.name = entry_name(item)
    if not entry.name:
        raise ConfigError(f"{place} has keys, but no file and no name; set name")
    for name in ("keys", "grid", "space"):
        check_own(getattr(entry, name), f"{place}: {name}")
    check_grid(entry.grid, f"{place}: grid")
    return entry


def entry_name(item: str | dict) -> str | None:
    """Return what an item of `configurations` is called; None if nothing names it."""
    if isinstance(item, str):
        return Path(item).stem if item.endswith(".json") else item
    return item.get("name") or item.get("baseline") or (Path(item["file"]).stem if item.get("file") else None)
