"""Published data sets, from the hub or a local copy of it, and how their splits become ours."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
from datasets import Dataset

from common.errors import ConfigError, one_line, warn_once
from seq2seq.arguments import SPLIT_SEED, DataTrainingArguments
from seq2seq.data.tables import read_table
from seq2seq.data.tasks import Task
from seq2seq.hub import hub_answers, reason

HELD_OUT = 1000  # training rows that become the validation split
SUFFIXES = ("parquet", "jsonl", "json", "csv")


class Published(Task):
    """A data set with published training and validation sets, whose published test set has no labels.

    The published validation set is halved into our validation and test splits by a seeded shuffle. A task says which
    `hub_dataset` and `config` it is and, where they are more than its fields and "label", the `columns` it needs.
    """

    hub_dataset: str
    config: str
    columns: Sequence[str] = ()
    # Columns that are not plain cells (in CSV they are JSON texts): what is kept of a cell, and what one looks like.
    nested: Mapping[str, tuple[Callable, str]] = {}
    answer_field = "label"  # rows where it is missing are left out

    def __init__(self, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED):
        super().__init__(arguments, seed)
        self._checked: dict[str, Dataset] = {}

    def load(self, split: str) -> Dataset:
        if split == "train":
            return self.published("train")
        rows = self.published("validation")
        groups = rows[self.group_field][:] if self.group_field else range(len(rows))
        names = list(dict.fromkeys(groups))
        order = shuffled(len(names), self.seed)
        half = order[: len(names) // 2] if split == "validation" else order[len(names) // 2 :]
        if not self.group_field:
            return rows.select(half)
        chosen = {names[n] for n in half}
        return rows.select([row for row, group in enumerate(groups) if group in chosen])

    def published(self, split: str) -> Dataset:
        """The labelled rows of a published split, the needed columns alone. Raises ConfigError for a bad row."""
        if split not in self._checked:
            self._checked[split] = self._read(split)
        return self._checked[split]

    def _read(self, split: str) -> Dataset:
        rows, place = load_published(self.hub_dataset, self.config, split, self.arguments)
        needed = self.columns or (*self.fields, "label")
        missing = [name for name in needed if name not in rows.column_names]
        if missing:
            have = ", ".join(rows.column_names)
            raise ConfigError(f"{place} has no column {', '.join(missing)}, which {self.name} needs; it has {have}")
        rows = rows.select_columns(list(needed))
        for name in needed:
            if name not in self.nested and name != self.answer_field:
                _check_texts(rows[name][:], f"{place}, column {name}")
        for name, (keep, example) in self.nested.items():
            cells = [_nested(cell, keep, example, f"{place}, row {n}", name) for n, cell in enumerate(rows[name][:], 1)]
            rows = _replaced(rows, name, cells)
        return self._answered(rows, place)

    def _answered(self, rows: Dataset, place: str) -> Dataset:
        """The rows that have a label, or answers; labels that are text (in CSV) as numbers."""
        given = rows[self.answer_field][:]
        read = [self.read_answer(value, f"{place}, row {n}") for n, value in enumerate(given, 1)]
        if any(isinstance(value, str) for value in given):
            rows = _replaced(rows, self.answer_field, read)
        kept = [n for n, value in enumerate(read) if value is not None]
        if len(kept) < len(read):
            warn_once(f"{place}: {len(read) - len(kept)} rows that have no {self.answer_field} are left out")
            rows = rows.select(kept)
        return rows

    def read_answer(self, value, place: str) -> float | None:
        """A cell with a label as a number, None for "not labelled" (-1 or null)."""
        if value is None or value == "":
            return None
        lowest, highest = self.score_range or (0, len(self.labels) - 1)
        try:
            number = float(value)
        except (ValueError, TypeError):
            number = None
        if number == -1:
            return None
        if number is None or not lowest <= number <= highest or not (self.score_range or number.is_integer()):
            raise ConfigError(f"{place}: label is {value!r}; {self.name} has {lowest:g} to {highest:g}")
        return number if self.score_range else int(number)


class HeldOut(Published):
    """A published data set large enough to give 1,000 training rows for validation; its validation set is our test.

    Of a training set under 2,000 rows (an excerpt) a tenth is held out, and a warning says so.
    """

    def load(self, split: str) -> Dataset:
        if split == "test":
            return self.published("validation")
        rows = self.published("train")
        count = HELD_OUT if len(rows) >= 2 * HELD_OUT else max(len(rows) // 10, 1)
        if count < HELD_OUT:
            warn_once(
                f"{self.name}: of {len(rows)} training rows {count} are held out for validation, not {HELD_OUT:,}"
            )
        order = shuffled(len(rows), self.seed)
        return rows.select(order[:count] if split == "validation" else sorted(order[count:]))


def shuffled(count: int, seed: int) -> list[int]:
    """0 .. count - 1 in an order that depends on the seed alone."""
    return np.random.default_rng(seed).permutation(count).tolist()


def load_published(hub_dataset: str, config: str, split: str, arguments: DataTrainingArguments) -> tuple[Dataset, str]:
    """(rows of a published split, the place that errors name), from the hub, or from data_dir if there is one."""
    if arguments.data_dir is not None:
        alone = len(arguments.all_tasks) == 1
        return _load_local(Path(arguments.data_dir), hub_dataset.split("/")[1], config, split, alone)
    place = f"{hub_dataset} ({config}, {split})"
    hub_answers()
    try:
        return datasets.load_dataset(hub_dataset, config, split=split), place
    except Exception as error:  # the hub's, the network's, parquet's, ..
        raise ConfigError(f"{place} cannot be loaded: {reason(error)}; offline, set data_dir to a local copy") from None


def _load_local(data_dir: Path, name: str, config: str, split: str, alone: bool) -> tuple[Dataset, str]:
    """From data_dir/{name}/{config}, data_dir/{config} or data_dir: the first of these directories that there is.

    alone: whether the run has no other task, whose files those in data_dir itself might be.
    """
    places = [data_dir / name / config, data_dir / config]
    directory = next((place for place in places if place.is_dir()), data_dir)
    if directory == data_dir and not alone and data_dir.is_dir() and data_dir.name != config:
        raise ConfigError(
            f"data_dir is {str(data_dir)!r}, without a directory {config}; with several tasks it needs one"
        )
    files = sorted(directory.glob(f"{split}-*.parquet"))
    files = files or [path for path in (directory / f"{split}.{suffix}" for suffix in SUFFIXES) if path.exists()][:1]
    if not files:
        sought = f"{split}-*.parquet or {split}.({'|'.join(SUFFIXES)})"
        inside = "" if directory != data_dir else f"{config}/{split}-*.parquet or "
        raise ConfigError(f"data_dir is {str(data_dir)!r}; {directory} holds no {inside}{sought}")
    shards = re.search(r"-of-0*(\d+)\.", files[0].name)
    if shards and int(shards[1]) != len(files):
        raise ConfigError(f"data_dir: {directory} holds {len(files)} of the {shards[1]} files {split}-*.parquet")
    tables = [read_table(path, "data_dir") for path in files]
    place = f"data_dir: {files[0] if len(files) == 1 else directory / f'{split}-*.parquet'}"
    try:
        return datasets.concatenate_datasets(tables), place
    except ValueError as error:
        raise ConfigError(f"{place} do not fit together: {one_line(error)}") from None


def _replaced(rows: Dataset, name: str, cells: list) -> Dataset:
    return rows.remove_columns(name).add_column(name, cells)


def _check_texts(cells: list, place: str) -> None:
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, str):
            raise ConfigError(f"{place}, row {number} is {cell!r}; it must be a text")


def _nested(cell, keep: Callable, example: str, place: str, name: str):
    try:
        if isinstance(cell, str):
            cell = json.loads(cell) if cell else None
        return keep(cell)
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{place}: column {name} is {str(cell)[:60]!r}; it must be like {example}") from None


def texts_of(cell: Sequence[str] | None) -> list[str]:
    """A cell that holds a list of texts; null counts as an empty one. Raises TypeError if it holds anything else."""
    if not all(isinstance(text, str) for text in cell or []) or isinstance(cell, dict | str):
        raise TypeError
    return list(cell or [])
