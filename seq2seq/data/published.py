"""Published data sets, from the hub or a local copy, and how our splits are made of theirs."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import datasets
import numpy as np
import pyarrow
from datasets import Dataset

from common.errors import ConfigError, shortened, warn_once
from seq2seq.arguments import SPLIT_SEED, DataTrainingArguments
from seq2seq.data.layouts import local_rows, with_columns
from seq2seq.data.layouts.nested import from_json
from seq2seq.data.layouts.originals import tidy
from seq2seq.data.tasks import Task
from seq2seq.hub import hub_answers, reason

HELD_OUT = 1000  # training rows that become the validation split
NO_LABEL = (None, "", "-")  # "-": people did not agree on a gold_label


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

    @property
    def source_columns(self) -> Sequence[str]:
        return [name for name in self.columns or self.fields if name not in (self.answer_field, *self.reference_fields)]

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
        needed = self.columns or (*self.fields, "label")
        rows, place = self._source(split, needed)
        for name in needed:
            if name not in self.nested and name != self.answer_field:
                _check_texts(rows[name][:], f"{place}, column {name}")
        for name, (keep, example) in self.nested.items():
            cells = [_nested(cell, keep, example, f"{place}, row {n}", name) for n, cell in enumerate(rows[name][:], 1)]
            rows = _replaced(rows, name, cells)
        return self._answered(rows, place)

    def _source(self, split: str, needed: Sequence[str]) -> tuple[Dataset, str]:
        """Return (the needed columns of a published split, place that messages name), from data_dir or the hub."""
        given = self.arguments
        if given.data_dir is not None:
            family, alone = self.hub_dataset.split("/")[1], len(given.all_tasks) == 1
            return local_rows(Path(given.data_dir), family, self.config, self.name, split, needed, alone)
        place = f"{self.hub_dataset} ({self.config}, {split})"
        return with_columns(from_hub(self.hub_dataset, self.config, split, place), needed, self.name, place), place

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
        """Return a label as a number, or None for a row without a label (-1, null, "" or "-").

        Labels may be the hub's words, in any case.

        place: what errors name. Raises ConfigError for any other value.
        """
        if value in NO_LABEL:
            return None
        lowest, highest = self.score_range or (0, len(self.labels) - 1)
        try:
            number = float(value)
        except (ValueError, TypeError):
            number = self._numbers.get(tidy(value)) if isinstance(value, str) else None
        if number == -1:
            return None
        if number is None or not lowest <= number <= highest or not (self.score_range or float(number).is_integer()):
            words = f" or {', '.join(self.words)}" if self.words else ""
            given = shortened(repr(value), 60)
            raise ConfigError(f"{place}: label is {given}; {self.name} allows {lowest:g} to {highest:g}{words}")
        return number if self.score_range else int(number)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """The number of each label that is given as a word."""
        return {tidy(word): number for number, word in enumerate(self.words or ())}


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


def from_hub(hub_dataset: str, config: str, split: str, place: str) -> Dataset:
    """Return the rows of a published split on the hub. Raises ConfigError, naming the place, if it cannot be loaded."""
    hub_answers()
    try:
        return datasets.load_dataset(hub_dataset, config, split=split)
    except Exception as error:  # from the hub, the network, parquet, ..
        raise ConfigError(
            f"{place} cannot be loaded: {reason(error)}; to run offline, set data_dir to a local copy"
        ) from None


def _replaced(rows: Dataset, name: str, cells: list) -> Dataset:
    """Return the rows with other cells in a column. add_column would hash them one by one, for half a minute."""
    table = rows.with_format("arrow")[:].replace_schema_metadata(None)
    return Dataset(table.set_column(table.column_names.index(name), name, pyarrow.array(cells)))


def _check_texts(cells: list, place: str) -> None:
    for number, cell in enumerate(cells, 1):
        if not isinstance(cell, str):
            raise ConfigError(f"{place}, row {number} is {shortened(repr(cell), 60)}; it must be a string")


def _nested(cell, keep: Callable, example: str, place: str, name: str):
    try:
        return keep(from_json(cell, place, name))
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{place}: column {name} is {str(cell)[:60]!r}; it must be like {example}") from None


def texts_of(cell: Sequence[str] | None) -> list[str]:
    """Return a cell that holds a list of texts; null is an empty list. Raises TypeError for anything else."""
    if not all(isinstance(text, str) for text in cell or []) or isinstance(cell, dict | str):
        raise TypeError
    return list(cell or [])
