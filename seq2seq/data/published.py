"""Published data sets, from the hub or a local copy, and how our splits are made of theirs."""

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
    """A data set with labelled training and validation sets; its published test set has no labels and is not used.

    A seeded shuffle halves the published validation set into our validation and test splits.

    hub_dataset, config: the data set and its configuration on the hub.
    columns: the columns to read, if they are not the task's fields and "label".
    nested: column -> (function, example), for columns of lists or objects (JSON texts in CSV). The function returns
        what is kept of a cell; the example is for error messages.
    answer_field: the column with the label; rows without one are skipped.
    """

    hub_dataset: str
    config: str
    columns: Sequence[str] = ()
    nested: Mapping[str, tuple[Callable, str]] = {}
    answer_field = "label"

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
        """Return the labelled rows of a published split, with the needed columns. Raises ConfigError for a bad cell."""
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
        """Return the rows that have a label or answers, with textual labels (in CSV) turned into numbers."""
        given = rows[self.answer_field][:]
        read = [self.read_answer(value, f"{place}, row {n}") for n, value in enumerate(given, 1)]
        if any(isinstance(value, str) for value in given):
            rows = _replaced(rows, self.answer_field, read)
        kept = [n for n, value in enumerate(read) if value is not None]
        if len(kept) < len(read):
            warn_once(f"{place}: {len(read) - len(kept)} rows without {self.answer_field} are skipped")
            rows = rows.select(kept)
        return rows

    def read_answer(self, value, place: str) -> float | None:
        """Return a label as a number, or None for a row without a label (-1 or null).

        place: what errors name. Raises ConfigError for any other value.
        """
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
            raise ConfigError(f"{place}: label is {value!r}; {self.name} allows {lowest:g} to {highest:g}")
        return number if self.score_range else int(number)


class HeldOut(Published):
    """A data set with 1,000 training rows held out for validation; its published validation set is our test split.

    If there are fewer than 2,000 training rows (an excerpt), a tenth is held out, with a warning.
    """

    def load(self, split: str) -> Dataset:
        if split == "test":
            return self.published("validation")
        rows = self.published("train")
        count = HELD_OUT if len(rows) >= 2 * HELD_OUT else max(len(rows) // 10, 1)
        if count < HELD_OUT:
            warn_once(
                f"{self.name}: {count} of {len(rows)} training rows are held out for validation, not {HELD_OUT:,}"
            )
        order = shuffled(len(rows), self.seed)
        return rows.select(order[:count] if split == "validation" else sorted(order[count:]))


def shuffled(count: int, seed: int) -> list[int]:
    """Return 0 .. count - 1 in an order that depends only on the seed."""
    return np.random.default_rng(seed).permutation(count).tolist()


def load_published(hub_dataset: str, config: str, split: str, arguments: DataTrainingArguments) -> tuple[Dataset, str]:
    """Return (rows of a published split, place that errors name), from data_dir if it is set, else from the hub."""
    if arguments.data_dir is not None:
        alone = len(arguments.all_tasks) == 1
        return _load_local(Path(arguments.data_dir), hub_dataset.split("/")[1], config, split, alone)
    place = f"{hub_dataset} ({config}, {split})"
    hub_answers()
    try:
        return datasets.load_dataset(hub_dataset, config, split=split), place
    except Exception as error:  # from the hub, the network, parquet, ..
        raise ConfigError(
            f"{place} cannot be loaded: {reason(error)}; to run offline, set data_dir to a local copy"
        ) from None


def _load_local(data_dir: Path, name: str, config: str, split: str, alone: bool) -> tuple[Dataset, str]:
    """Load a split from the first of data_dir/{name}/{config}, data_dir/{config} and data_dir that exists.

    alone: True if the run has only one task; files in data_dir itself might belong to another one otherwise.
    Returns (rows, place that errors name). Raises ConfigError if files are missing or do not fit together.
    """
    places = [data_dir / name / config, data_dir / config]
    directory = next((place for place in places if place.is_dir()), data_dir)
    if directory == data_dir and not alone and data_dir.is_dir() and data_dir.name != config:
        raise ConfigError(
            f"data_dir is {str(data_dir)!r}, without a directory {config}; with several tasks each needs a directory"
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
            raise ConfigError(f"{place}, row {number} is {cell!r}; it must be a string")


def _nested(cell, keep: Callable, example: str, place: str, name: str):
    try:
        if isinstance(cell, str):
            cell = json.loads(cell) if cell else None
        return keep(cell)
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{place}: column {name} is {str(cell)[:60]!r}; it must be like {example}") from None


def texts_of(cell: Sequence[str] | None) -> list[str]:
    """Return a cell that holds a list of texts; null is an empty list. Raises TypeError for anything else."""
    if not all(isinstance(text, str) for text in cell or []) or isinstance(cell, dict | str):
        raise TypeError
    return list(cell or [])
