"""The rows of the table that a sweep fills, and what is read of the sweep's keys."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.json_settings import check_keys, read_file
from common.keys import key_fields
from seq2seq.arguments import DataTrainingArguments
from seq2seq.comparison.names import word
from seq2seq.data.batches import tasks_of_splits
from seq2seq.settings import Settings, own_keys, settings_of, transformers_keys
from seq2seq.sweeps.baselines import BASELINES
from seq2seq.sweeps.checks import check_own
from seq2seq.sweeps.specification import OTHERS, PROGRAM, Entry, Sweep
from seq2seq.translation import Notes
from seq2seq.unread import names_unread


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


class RowReader:
    """Makes rows of the items of `configurations`.

    warnings: what the user should know about how the files were read, one line each.
    """

    def __init__(self, sweep: Sweep, tasks: dict[str, dict[str, Any]]):
        """Take the sweep, and the keys of each task, by its name in tables."""
        self.sweep, self.tasks, self.warnings = sweep, tasks, []
        choice = sweep.choice
        self._space, self._metric = (choice.space, choice.metric) if choice else ({}, None)
        self._read: set[str] = set()

    def rows(self) -> dict[str, Row]:
        """Return all rows, by name. Raises ConfigError for whatever no run could start with."""
        found: dict[str, Row] = {}
        for entry in self.sweep.entries:
            for row in self._rows_of(entry):
                if row.name in found:
                    raise ConfigError(f"two configurations are called {row.name!r}; set name in one of them")
                found[row.name] = row
        unread = [name for name in {**(self.sweep.grid or {}), **self._space} if name not in self._read]
        if unread:
            raise ConfigError(f"{unread[0]} has several values, but no configuration of the sweep reads it; remove it")
        return found

    def _rows_of(self, entry: Entry) -> Iterator[Row]:
        """Yield the rows of an item of `configurations`, one for each point of its grid."""
        content = {} if entry.file is None else read_file(entry.file)
        file, group = entry.file or f"{entry.name}.json", entry.group or OTHERS
        keys = {**(self.sweep.keys or {}), **(entry.keys or {})}
        base = Row(entry.name, entry.name, group, {}, file, content, keys, {}, entry.baseline)
        grid, space = self._several(entry, base)
        for values in product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            words = ", ".join(word(name, value) for name, value in point.items())
            name = f"{entry.name} ({words})" if words else entry.name
            yield replace(base, name=name, grid=point, keys={**keys, **point}, space=space)

    def _several(self, entry: Entry, base: Row) -> tuple[dict[str, list], dict[str, Any]]:
        """Return the grid and the space of an item, without the keys that it does not read.

        Raises ConfigError if it names such a key itself, or if a key is in both.
        """
        own_grid, own_space = entry.grid or {}, entry.space or {}
        grid = {**(self.sweep.grid or {}), **own_grid}
        space = {**self._space, **own_space}
        read = self._keys_read(base, grid, space, own_grid)
        self._read |= read
        unread = [name for name in {**own_grid, **own_space} if name not in read]
        if unread:
            raise ConfigError(f"configuration {entry.name!r} does not read {unread[0]}, which has several values there")
        grid = {name: values for name, values in grid.items() if name in read}
        space = {name: values for name, values in space.items() if values is not None and name in read}
        if base.baseline is not None:
            space = {}
        both = [name for name in space if name in grid]
        if both:
            raise ConfigError(f"{entry.name}: {both[0]} is in the grid and in the space; it can be in one of them")
        fixed = [name for name in space if name in (self.sweep.choice.keys or {})] if space else []
        if fixed:
            raise ConfigError(f"{entry.name}: {fixed[0]} is in choose.keys and in the space; it can be in one of them")
        return grid, space

    def _keys_read(self, base: Row, grid: dict, space: dict, own_grid: dict[str, list]) -> set[str]:
        """Return those of the keys of grid and space that a run reads, and note what is to be said of its file."""
        if base.baseline is not None:
            if base.baseline not in BASELINES:
                raise ConfigError(f"baseline is {base.baseline!r}; it must be one of {', '.join(BASELINES)}")
            return {f.name for f in key_fields(DataTrainingArguments)}
        first = replace(base, keys={**base.keys, **{name: values[0] for name, values in own_grid.items()}})
        for task in self.tasks:
            settings, notes = self.settings(first, task, {})
            self._check_metric(settings, task)
        self.warnings += [f"{base.name}: {line}" for line in notes.lines()]
        return {*grid, *space} - {name for group in names_unread(settings).values() for name in group}

    def _check_metric(self, settings: Settings, task: str) -> None:
        """Raise ConfigError if a task does not have the metric to choose by."""
        if self._metric is None:
            return
        tasks = tasks_of_splits(settings.data, settings.training.split_seed)["validation"]
        known = {"average_metrics", "loss", *set.intersection(*(set(each.metrics) for each in tasks))}
        if self._metric not in known:
            raise ConfigError(f"choose.metric is {self._metric!r}; {task} has {', '.join(sorted(known))}")

    def settings(self, row: Row, task: str, more: dict[str, Any]) -> tuple[Settings, Notes]:
        """Return the settings of a run of a row on a task, with more keys, and what is to be said of its file."""
        values = {**row.keys, **self.tasks[task], "seeds": None, "do_train": True, **more}
        try:
            return settings_of(row.file, row.content, values)
        except ConfigError as error:
            raise ConfigError(f"{row.name}: {error}") from None


def task_of(item: str | dict, number: int) -> tuple[str, dict[str, Any]]:
    """Return the name of a task in tables, and its keys. Raises ConfigError."""
    if isinstance(item, str):
        return item, {"task_name": item}
    keys = dict(item)
    name = keys.pop("name", None)
    if "task_name" not in keys:
        raise ConfigError(f"tasks, item {number}: task_name is not set")
    check_own({key: value for key, value in keys.items() if key != "task_name"}, f"tasks, item {number}")
    known = {**dict.fromkeys(transformers_keys(), Any), **own_keys(), "name": str | None}
    check_keys({"name": name, **keys}, known, PROGRAM)
    if name is None:
        given = keys.get("data_name") or (
            Path(keys["train_file"]).stem if keys.get("train_file") else keys["task_name"]
        )
        name = "+".join(given) if isinstance(given, list) else str(given)
    return str(name), keys
