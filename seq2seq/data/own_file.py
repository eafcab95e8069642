"""The task "file": the user's own data files, turned into text by a template."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute as pc
from datasets import Dataset

from common.checksums import sha256_of
from common.errors import ConfigError
from seq2seq.arguments import SPLIT_SEED, DataTrainingArguments
from seq2seq.data.cache import as_dataset, cached_rows, hash_of
from seq2seq.data.file_rows import read_rows
from seq2seq.data.splits import part_of_each
from seq2seq.data.tables import Form, Source, table_of
from seq2seq.data.targets import Found, FreeText, Labels, Numbers, Reader
from seq2seq.data.tasks import SPLITS, Task, register
from seq2seq.metrics import COMPARED, METRICS, metric_names

HELD_OUT = 0.15  # share of the training file for each split without a file of its own
ENDINGS = re.compile(r"(\.(csv|tsv|tab|txt|jsonl|ndjson|json|parquet|gz))+$", re.IGNORECASE)
MOST_LABELS = 1000  # that labels "auto" takes from a file
# What determines which sources and targets are read from a file.
READ_BY = (
    *("format", "delimiter", "encoding", "columns", "missing_values", "multiple", "source_template"),
    *("optional_columns", "target_column", "labels", "metrics", "target_step", "on_bad_rows"),
)


class FileTask(Task):
    """Source: `source_template`, filled in with the columns of a row; target: `target_column`.

    If validation_file or test_file is null, 15% of the training file's rows are held out for it; rows with the same
    source stay together. Errors count rows from 1, without the header.
    """

    name = "file"
    named_in_source = False  # the template is the whole source

    def __init__(self, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED):
        """Raise ConfigError if labels and metrics do not fit together."""
        super().__init__(arguments, seed)
        self._read: dict[str, Dataset] = {}
        self._sums: dict[str, str] = {}  # file -> SHA-256
        self._numbers: dict[str, list[int]] = {}  # split -> those of its rows in the file
        given = self.arguments.labels
        self.given_words = given if isinstance(given, dict) else {}
        self._labels = None if given == "auto" or given is None else list(given)
        self.metrics = metric_names(self.arguments.metrics or (["accuracy"] if given else ["exact"]))
        if self._labels is not None:
            _check_labels(self._labels)
        _check_metrics(self.metrics, given, self._labels)
        if self.arguments.target_step is not None and COMPARED[self.metrics[0]] != "numbers":
            raise ConfigError(
                f"target_step is {self.arguments.target_step}, but metrics is {self.metrics!r}, which compares no "
                'numbers; set metrics to ["pearson"] or ["spearmanr"], or target_step to null'
            )

    @property
    def data_name(self) -> str:
        file = getattr(self.arguments, self._first_key)
        return self.arguments.data_name or (ENDINGS.sub("", Path(file).name) if file else "") or self.name

    @cached_property
    def labels(self) -> Sequence[str] | None:
        """The labels; with "auto" those that the training file, or else the first file given, has."""
        if self.arguments.labels != "auto":
            return self._labels
        rows = self.rows(self._first_key)
        found = set(rows["target"][:])
        if self.arguments.multiple:
            found.update(text for texts in rows["accepted"][:] for text in texts)
        key = f"labels is 'auto', but {self.arguments.target_column} of {getattr(self.arguments, self._first_key)} has"
        if len(found) > MOST_LABELS:
            raise ConfigError(f"{key} {len(found):,} different values; for free text leave labels out")
        if len(found) == 1:
            raise ConfigError(f"{key} only the value {found.pop()!r}; there is nothing to learn")
        _check_metrics(self.metrics, "auto", sorted(found))
        return sorted(found)

    @cached_property
    def score_range(self) -> tuple[float, float] | None:
        """The lowest and highest target of the first file given, if targets are numbers."""
        if COMPARED[self.metrics[0]] != "numbers":
            return None
        numbers = pc.min_max(pc.cast(self.rows(self._first_key).data.column("target"), pyarrow.float64()))
        return numbers["min"].as_py(), numbers["max"].as_py()

    @property
    def _first_key(self) -> str:
        return next((key for key in map("{}_file".format, SPLITS) if getattr(self.arguments, key)), "train_file")

    @property
    def reference_fields(self) -> Sequence[str]:
        return ("accepted",) if self.arguments.multiple else ()

    def examples(
        self, split: str, prefix: bool = True, select: Callable[[Dataset], Dataset] = lambda rows: rows
    ) -> Dataset:
        """Return the sources and targets of a split. Raises ConfigError that lists the rows that cannot be used."""
        own = split != "train" and getattr(self.arguments, f"{split}_file")
        rows = self.rows(f"{split}_file") if own else self._part(split)
        chosen = select(rows.select_columns(["source", "target", "row", *self.reference_fields]))
        self._numbers[split] = chosen["row"][:]
        return chosen.remove_columns("row")

    def identity(self, split: str, texts: Dataset) -> str:
        """Return a hash of which rows of which file a split has, whatever the template makes of them."""
        own = split != "train" and getattr(self.arguments, f"{split}_file")
        return hash_of([self._sums[own or self.arguments.train_file], self._numbers[split], texts["target"][:]])

    def _part(self, split: str) -> Dataset:
        """Return the rows of the training file that are in a split without a file of its own."""
        rows = self.rows("train_file")
        table = rows.data.table
        if len(self._parts) == 1:
            return rows
        return as_dataset(table.filter(pc.equal(table.column("part"), self._parts.index(split))))

    @property
    def _parts(self) -> list[str]:
        """The splits of the training file: "train" and those that have no file of their own."""
        return [part for part in SPLITS if part == "train" or not getattr(self.arguments, f"{part}_file")]

    def rows(self, key: str) -> Dataset:
        """Return the rows of the file that a key names, all of them: source, target, what else is accepted, part.

        key: "train_file", "validation_file" or "test_file".
        """
        if key not in self._read:
            path = getattr(self.arguments, key)
            if path is None:
                raise ConfigError(
                    f"{key} is null; task_name 'file' needs it for every split that has no file of its own"
                )
            settings = {name: getattr(self.arguments, name) for name in READ_BY}
            settings["labels"] = getattr(self.reader(key), "labels", None)
            parts = self._parts if key == "train_file" else ["all"]
            source = Source(path, key, self.form)
            self._sums[path] = sha256_of(path)
            facts = [key, path, self._sums[path], settings, parts]
            self._read[key] = cached_rows(facts, lambda: self._rows_of(source, key, len(parts)))
        return self._read[key]

    def _rows_of(self, source: Source, key: str, parts: int) -> tuple[pyarrow.Table, list[str]]:
        """Read a file. Returns its rows and warnings."""
        rows, warnings = read_rows(table_of(source), self.arguments, self.reader(key))
        shares = [1 - HELD_OUT * (parts - 1), *[HELD_OUT] * (parts - 1)]
        sources = rows.column("source").to_pylist() if parts > 1 else []
        part = part_of_each(sources, shares) if parts > 1 else np.zeros(len(rows), np.int8)
        if len(set(part.tolist())) < parts:
            held = " and ".join(split for split in self._parts if split != "train")
            raise ConfigError(
                f"{source.place}: its {len(rows):,} rows have too few different sources to hold some out for {held}; "
                "name files for them, such as validation_file and test_file"
            )
        return rows.append_column("part", pyarrow.array(part)), warnings

    @property
    def form(self) -> Form:
        """How the files are written."""
        given = self.arguments
        return Form(given.format, given.delimiter, given.encoding, given.columns and tuple(given.columns))

    def reader(self, key: str) -> Reader:
        if self._labels is not None or self.arguments.labels == "auto" and key != self._first_key:
            return Labels(self.labels)
        if self.arguments.labels == "auto":
            return Found()
        return Numbers(self.arguments.target_step) if COMPARED[self.metrics[0]] == "numbers" else FreeText()

    def accepted(self, references: Mapping[str, Sequence]) -> Sequence:
        return references.get("accepted") or references["target"]

    def right(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> Sequence[str]:
        accepted = references.get("accepted")
        if accepted is None:
            return references["target"]
        words = [text.split() for text in predictions]
        pairs = zip(words, accepted, strict=True)
        return [next((text for text in texts if text.split() == said), texts[0]) for said, texts in pairs]

    def compared(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> tuple:
        """Return predictions and targets as the metrics compare them; any accepted label or number is right."""
        if COMPARED[self.metrics[0]] == "texts":
            return super().compared(predictions, references)
        return super().compared(predictions, {"target": self.right(predictions, references)})


def _check_labels(labels: Sequence[str]) -> None:
    clean = all(isinstance(label, str) and label.strip() for label in labels)
    if not clean or len({" ".join(label.split()) for label in labels}) != len(labels) or len(labels) < 2:
        raise ConfigError(f"labels is {labels!r}; it must be two or more texts that differ in more than white space")


def _check_metrics(names: list[str], given: object, labels: Sequence[str] | None) -> None:
    unknown = [name for name in names if name not in METRICS]
    if unknown or len(set(names)) < len(names):
        raise ConfigError(f"metrics is {names!r}; it must be a list of different metrics: {', '.join(METRICS)}")
    allowed = ("labels",) if given else ("numbers", "texts")
    compared = [COMPARED[name] for name in names]
    if len(set(compared)) > 1 or compared[0] not in allowed:
        what = ", ".join(f"{name} compares {kind}" for name, kind in zip(names, compared, strict=True))
        raise ConfigError(f"metrics is {names!r} and labels is {given!r}; {what}; choose metrics that fit the targets")
    if "f1" in names and labels is not None and len(labels) != 2:
        raise ConfigError(f"metrics is {names!r}; f1 needs two labels, but there are {len(labels)}; use f1_multiclass")


register(FileTask.name, FileTask)
