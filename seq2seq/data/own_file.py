"""The task "file": the user's own data files, turned into text by a template."""

import math
from functools import cached_property
from string import Formatter

from datasets import Dataset

from common.errors import ConfigError
from seq2seq.arguments import SPLIT_SEED, DataTrainingArguments
from seq2seq.data.splits import split_by_text
from seq2seq.data.tables import read_table
from seq2seq.data.tasks import SPLITS, Task, register
from seq2seq.metrics import COMPARED, METRICS, metric_names

HELD_OUT = 0.15  # share of the training file for each split without a file of its own


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
        self._checked: dict[str, Dataset] = {}
        self.labels = self.arguments.labels
        self._allowed = set(self.labels or ())
        self.metrics = metric_names(self.arguments.metrics or (["accuracy"] if self.labels else ["exact"]))
        if self.labels is not None:
            _check_labels(self.labels)
        _check_metrics(self.metrics, self.labels)

    @property
    def numeric(self) -> bool:
        """True if targets are numbers."""
        return COMPARED[self.metrics[0]] == "numbers"

    @cached_property
    def score_range(self) -> tuple[float, float] | None:
        """The lowest and highest target of the first file given, if targets are numbers."""
        if not self.numeric:
            return None
        key = next((key for key in map("{}_file".format, SPLITS) if getattr(self.arguments, key)), "train_file")
        numbers = [float(text) for text in self.read(key)[self.arguments.target_column]]
        return min(numbers), max(numbers)

    def load(self, split: str) -> Dataset:
        """Return the rows of a split, all cells as text. Raises ConfigError with file and row for an invalid cell."""
        if split != "train" and getattr(self.arguments, f"{split}_file"):
            return self.read(f"{split}_file")
        return self.read("train_file").select(self._cut[split])

    @cached_property
    def _cut(self) -> dict[str, list[int]]:
        """The rows of the training file in each split that has no file of its own."""
        columns = self.read("train_file").to_dict()
        sources = [self.format(dict(zip(columns, row, strict=True)))[0] for row in zip(*columns.values(), strict=True)]
        parts = [part for part in SPLITS if part == "train" or not getattr(self.arguments, f"{part}_file")]
        held_out = [HELD_OUT] * (len(parts) - 1)
        return dict(zip(parts, split_by_text(sources, [1 - sum(held_out), *held_out]), strict=True))

    def read(self, key: str) -> Dataset:
        """Return the checked rows of the file that `key` names."""
        if key not in self._checked:
            self._checked[key] = self._read(key)
        return self._checked[key]

    def _read(self, key: str) -> Dataset:
        path = getattr(self.arguments, key)
        if path is None:
            raise ConfigError(f"{key} is null; task_name 'file' needs it for every split that has no file of its own")
        rows, place = read_table(path, key, text_only=True), f"{key}: {path}"
        fields = self._template_fields(rows.column_names, place)
        target = self.arguments.target_column
        if target not in rows.column_names:
            have = ", ".join(rows.column_names)
            raise ConfigError(f"target_column is {target!r}, but {place} does not have it; its columns are {have}")
        for name in dict.fromkeys((*fields, target)):
            for number, text in enumerate(rows[name][:], 1):
                if not text.strip():
                    raise ConfigError(f"{place}, row {number}: column {name} is empty")
        for number, text in enumerate(rows[target][:], 1):
            self._check_target(text.strip(), f"{place}, row {number}: {target}")
        return rows

    def format(self, row: dict) -> tuple[str, str]:
        parts = Formatter().parse(self.arguments.source_template)
        source = "".join(text if name is None else text + row[name] for text, name, _, _ in parts)
        return source, row[self.arguments.target_column].strip()

    def _template_fields(self, columns: list[str], place: str) -> list[str]:
        """Return the columns in the template. Raises ConfigError unless each is one of `columns`."""
        template = self.arguments.source_template
        known = f"{place} has the columns {', '.join(columns)}"
        if template is None:
            raise ConfigError(
                f'source_template is null; set it to the text of a source, such as "text: {{text}}"; {known}'
            )
        try:
            fields = [part[1:] for part in Formatter().parse(template) if part[1] is not None]
        except ValueError as error:
            raise ConfigError(f"source_template is {template!r}: {error}; {known}") from None
        wrong = [field for field, form, conversion in fields if not field or field not in columns or form or conversion]
        if wrong or not fields:
            what = f"but {{{wrong[0]}}} is not the name of a column" if wrong else "with no column in braces"
            raise ConfigError(f"source_template is {template!r}, {what}; {known}")
        return [field for field, _, _ in fields]

    def _check_target(self, text: str, place: str) -> None:
        if self.labels is not None and text not in self._allowed:
            raise ConfigError(f"{place} is {text!r}; allowed by labels: {', '.join(self.labels)}")
        if self.numeric:
            try:
                finite = math.isfinite(float(text))
            except ValueError:
                finite = False
            if not finite:
                raise ConfigError(f"{place} is {text!r}; it must be a number, as metrics is {self.metrics!r}")


def _check_labels(labels: list[str]) -> None:
    clean = all(isinstance(label, str) and label and label == label.strip() for label in labels)
    if not clean or len(set(labels)) != len(labels) or len(labels) < 2:
        raise ConfigError(
            f"labels is {labels!r}; it must be two or more different texts, without surrounding whitespace"
        )


def _check_metrics(names: list[str], labels: list[str] | None) -> None:
    unknown = [name for name in names if name not in METRICS]
    if unknown or len(set(names)) < len(names):
        raise ConfigError(f"metrics is {names!r}; it must be a list of different metrics: {', '.join(METRICS)}")
    allowed = ("labels",) if labels else ("numbers", "texts")
    compared = [COMPARED[name] for name in names]
    if len(set(compared)) > 1 or compared[0] not in allowed:
        what = ", ".join(f"{name} compares {kind}" for name, kind in zip(names, compared, strict=True))
        raise ConfigError(f"metrics is {names!r} and labels is {labels!r}; {what}; choose metrics that fit the targets")
    if "f1" in names and len(labels) != 2:
        raise ConfigError(f"metrics is {names!r}; f1 needs two labels, but there are {len(labels)}; use f1_multiclass")


register(FileTask.name, FileTask)
