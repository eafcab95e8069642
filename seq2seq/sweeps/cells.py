"""The cells of a sweep: each is one run, recognised by what it computes and on which data."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from common.checksums import sha256_of
from common.errors import ConfigError
from common.json_settings import check_keys, read_file
from common.keys import key_fields
from seq2seq.arguments import DataTrainingArguments
from seq2seq.comparison.names import word
from seq2seq.data.batches import tasks_of_splits
from seq2seq.layout import INCIDENTAL
from seq2seq.runs import DATA_FILES
from seq2seq.settings import Settings, own_defaults, own_keys, settings_of, transformers_keys
from seq2seq.sweeps.baselines import BASELINES
from seq2seq.sweeps.spaces import candidates
from seq2seq.sweeps.specification import PROGRAM, Entry, Sweep
from seq2seq.unread import names_unread

CHOOSE, REPORT = "choose", "report"
OTHERS = "others"  # the group of configurations without one
BESIDE = {*INCIDENTAL, "experiment_name", "seeds", "do_train", *DATA_FILES}  # not part of what a cell computes
KEY_LENGTH = 16


@dataclass(frozen=True)
class Row:
    """A row of the table that a sweep fills: one configuration at one point of the grid.

    name: unique in the sweep.
    entry, group: the item of `configurations` that it is of, and the group of that.
    grid: its point of the grid.
    file, content: the configuration file, and what it holds.
    keys: on top of it, without those of task, seed and space.
    space: what is chosen on validation.
    baseline: the name of a classifier without T5; None for a run.
    """

    name: str
    entry: str
    group: str
    grid: dict[str, Any]
    file: str
    content: dict[str, Any]
    keys: dict[str, Any]
    space: dict[str, Any]
    baseline: str | None = None


@dataclass(frozen=True)
class Cell:
    """One run.

    key: identifies it: a hash of its configuration and of the user's data files.
    row, entry, group, grid: see Row.
    task, seed: its place in the table, with the row.
    stage: CHOOSE for a run to choose by, REPORT for one that is reported.
    chosen: the values of the space.
    directory: where it is run.
    values: the complete configuration, as `seq2seq.settings.build` takes it.
    method: what is trained, in words.
    baseline: the name of a classifier without T5; None for a run.
    launch: the program that starts it in several processes; None: it is one process.
    """

    key: str
    row: str
    entry: str
    group: str
    grid: dict[str, Any]
    task: str
    seed: int
    stage: str
    chosen: dict[str, Any]
    directory: Path
    values: dict[str, Any] = field(repr=False)
    method: str
    baseline: str | None
    launch: str | None

    @property
    def place(self) -> tuple[str, str, int, str]:
        """Its place in the table; the same run may stand in several."""
        return self.row, self.task, self.seed, self.key

    @property
    def log(self) -> Path:
        """The file of what it prints."""
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def title(self) -> str:
        chosen = "".join(f", {word(name, value)}" for name, value in self.chosen.items())
        return f"{self.row}, {self.task}, seed {self.seed}{chosen if self.stage == CHOOSE else ''}"


class Table:
    """All cells of a sweep.

    rows: its rows, by name.
    tasks: the keys of each task, by its name in tables.
    warnings: what the user should know about how the files were read, one line each.
    """

    def __init__(self, sweep: Sweep):
        """Resolve the sweep. Raises ConfigError for whatever no cell could run with."""
        self.sweep, self.warnings = sweep, []
        self.tasks = dict(task_of(item, number) for number, item in enumerate(sweep.tasks, 1))
        if len(self.tasks) < len(sweep.tasks):
            raise ConfigError('two tasks have the same name in tables; give one of them a "name"')
        self._sums: dict[Path, str] = {}
        self.rows: dict[str, Row] = {}
        self._read: set[str] = set()
        for entry in sweep.entries:
            for row in self._rows_of(entry):
                if row.name in self.rows:
                    raise ConfigError(f"two configurations are called {row.name!r}; set name in one of them")
                self.rows[row.name] = row
        asked = {**(sweep.grid or {}), **(sweep.choice.space if sweep.choice else {})}
        unread = [name for name in asked if name not in self._read]
        if unread:
            raise ConfigError(f"{unread[0]} has several values, but no configuration of the sweep reads it; remove it")
        self._check_distinct()

    def choices(self, row: Row, task: str) -> list[Cell]:
        """Return the cells by which the values of a row are chosen for a task; [] if there is nothing to choose."""
        if not row.space:
            return []
        choice = self.sweep.choice
        seed = self.sweep.seeds[0] if choice.seed is None else choice.seed
        keys = {**(choice.keys or {}), "do_eval": True, "do_test": False}
        return [
            self._cell(row, task, seed, CHOOSE, values, keys) for values in candidates(row.space, choice.trials, seed)
        ]

    def reports(self, row: Row, task: str, chosen: dict[str, Any]) -> list[Cell]:
        """Return the reported cells of a row and a task, one a seed."""
        return [self._cell(row, task, seed, REPORT, chosen, {"do_test": True}) for seed in self.sweep.seeds]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Return the number of cells by row, task and stage."""
        found = {}
        for row, task in self.pairs():
            if row.space:
                found[row.name, task, CHOOSE] = len(self.choices(row, task))
            found[row.name, task, REPORT] = len(self.sweep.seeds)
        return found

    def pairs(self) -> Iterator[tuple[Row, str]]:
        """Yield every row with every task."""
        yield from product(self.rows.values(), self.tasks)

    def _check_distinct(self) -> None:
        """Raise ConfigError if two rows, or two tasks, stand for the same runs, which would share a directory."""
        seen: dict[str, str] = {}
        for row, task in self.pairs():
            key, title = self._cell(row, task, self.sweep.seeds[0], REPORT, {}, {}).key, f"{row.name} on {task}"
            if key in seen:
                raise ConfigError(f"{seen[key]} and {title} are the same runs; remove one of them")
            seen[key] = title

    def _rows_of(self, entry: Entry) -> Iterator[Row]:
        """Yield the rows of an item of `configurations`."""
        content = {} if entry.file is None else read_file(entry.file)
        file, group = entry.file or f"{entry.name}.json", entry.group or OTHERS
        keys = {**(self.sweep.keys or {}), **(entry.keys or {})}
        grid = {**(self.sweep.grid or {}), **(entry.grid or {})}
        space = {**(self.sweep.choice.space if self.sweep.choice else {}), **(entry.space or {})}
        if entry.baseline is not None:
            if entry.baseline not in BASELINES:
                raise ConfigError(f"baseline is {entry.baseline!r}; it must be one of {', '.join(BASELINES)}")
            read = {f.name for f in key_fields(DataTrainingArguments)}
            space = {}
        else:
            first = {name: values[0] for name, values in (entry.grid or {}).items()}
            base = Row(entry.name, entry.name, group, {}, file, content, {**keys, **first}, {})
            read = self._keys_read(base, {*grid, *space})
        self._read |= read
        own = [name for name in {**(entry.grid or {}), **(entry.space or {})} if name not in read]
        if own:
            raise ConfigError(f"configuration {entry.name!r} does not read {own[0]}, for which it has several values")
        space = {name: values for name, values in space.items() if values is not None and name in read}
        both = [name for name in space if name in grid]
        if both:
            raise ConfigError(f"{entry.name}: {both[0]} is in the grid and in the space; it can be in one of them")
        grid = {name: values for name, values in grid.items() if name in read}
        for values in product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            words = ", ".join(word(name, value) for name, value in point.items())
            name = f"{entry.name} ({words})" if words else entry.name
            yield Row(name, entry.name, group, point, file, content, {**keys, **point}, space, entry.baseline)

    def _keys_read(self, row: Row, names: set[str]) -> set[str]:
        """Return those of the keys that a run of this row reads, and note what is to be said of its file."""
        for task in self.tasks:
            settings, notes = self._settings(row, task, {})
            self._check_metric(settings, task)
        self.warnings += [f"{row.name}: {line}" for line in notes.lines()]
        unread = {name for group in names_unread(settings).values() for name in group}
        return names - unread

    def _check_metric(self, settings: Settings, task: str) -> None:
        """Raise ConfigError if a task does not have the metric to choose by."""
        if self.sweep.choice is None:
            return
        metric = self.sweep.choice.metric
        tasks = tasks_of_splits(settings.data, settings.training.split_seed)["validation"]
        known = {"average_metrics", "loss", *set.intersection(*(set(each.metrics) for each in tasks))}
        if metric not in known:
            raise ConfigError(f"choose.metric is {metric!r}; {task} has {', '.join(sorted(known))}")

    def _settings(self, row: Row, task: str, more: dict[str, Any]) -> tuple[Settings, Any]:
        values = {**row.keys, **self.tasks[task], "seeds": None, "do_train": True, **more}
        try:
            return settings_of(row.file, row.content, values)
        except ConfigError as error:
            raise ConfigError(f"{row.name}: {error}") from None

    def _cell(self, row: Row, task: str, seed: int, stage: str, chosen: dict, keys: dict) -> Cell:
        own = {**chosen, **keys, "seed": seed, "experiment_name": row.name}
        place = Path(self.sweep.output_dir, "cells", plain(row.name), plain(task))
        settings, _ = self._settings(row, task, {**own, "output_dir": str(place)})
        if isinstance(settings.data.low_resource, list):
            raise ConfigError(f"{row.name}: low_resource is a list; put it into the grid of the sweep")
        key = self._key(settings, row.baseline)
        directory = place / f"{stage}_seed_{seed}_{key}"
        values = {**settings.given, "output_dir": str(directory)}
        method = BASELINES[row.baseline].title if row.baseline else settings.method
        return Cell(
            key,
            row.name,
            row.entry,
            row.group,
            row.grid,
            task,
            seed,
            stage,
            chosen,
            directory,
            values,
            method,
            row.baseline,
            self.sweep.launch,
        )

    def _key(self, settings: Settings, baseline: str | None) -> str:
        """Return the hash of what a cell computes: of the values that differ from the defaults, and of its data."""
        resolved, defaults = settings.resolved(), own_defaults()
        what = {
            name: value
            for name, value in resolved.items()
            if name not in BESIDE and not (name in defaults and value == defaults[name])
        }
        files = {name: self._sum(Path(resolved[name])) for name in DATA_FILES if resolved.get(name)}
        launch = [] if self.sweep.launch is None else [self.sweep.launch]  # more processes, larger batches
        text = json.dumps([what, files, baseline, *launch], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]

    def _sum(self, path: Path) -> str:
        """Return the SHA-256 of a file, or of the names and the content of all files in a directory."""
        if not path.exists():
            raise ConfigError(f"{path} does not exist; it is named by one of the tasks or configurations")
        if path not in self._sums:
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            parts = [[str(file.relative_to(path)), sha256_of(file)] for file in files]
            self._sums[path] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._sums[path]


def task_of(item: str | dict, number: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a task in tables, and its keys. Raises ConfigError."""
    if isinstance(item, str):
        return item, {"task_name": item}
    keys = dict(item)
    name = keys.pop("name", None)
    if "task_name" not in keys:
        raise ConfigError(f"tasks, item {number}: task_name is not set")
    known = {**dict.fromkeys(transformers_keys(), Any), **own_keys(), "name": str | None}
    check_keys({"name": name, **keys}, known, PROGRAM)
    if name is None:
        given = keys.get("data_name") or (
            Path(keys["train_file"]).stem if keys.get("train_file") else keys["task_name"]
        )
        name = "+".join(given) if isinstance(given, list) else str(given)
    return str(name), keys


def plain(text: str) -> str:
    """Return a text as the name of a directory."""
    return re.sub(r"[^A-Za-z0-9.+=-]+", "_", text).strip("_.")[:80] or "_"
