"""The task contract: where the data of a task come from, its text format, its labels and its metrics."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
from datasets import Dataset

from common.errors import ConfigError
from seq2seq import metrics
from seq2seq.arguments import SPLIT_SEED, DataTrainingArguments

SPLITS = ("train", "validation", "test")


class Task:
    """One data set, posed as text to text.

    A task says `name`, `metrics` (names in `seq2seq.metrics.METRICS`) and either `labels` (the target texts, for a
    choice among few; `words`, the same as label_style "words" has them) or a `score_range` (for a number), or neither
    (free text). It implements `load` and, unless `fields` are enough, `format`.
    """

    name: str
    metrics: Sequence[str] = ("accuracy",)
    labels: Sequence[str] | None = None
    words: Sequence[str] | None = None
    score_range: tuple[float, float] | None = None
    fields: Sequence[str] = ()  # columns that make up the source, in order: "sentence1: .. sentence2: .."
    reference_fields: Sequence[str] = ()  # columns that scoring needs beside the target
    group_field: str | None = None  # a reference field; rows with the same value are scored together and never parted
    extra_fields: Sequence[str] = ()  # columns that the task's own collator or loss needs
    named_in_source = True  # whether sources start with the task's name where all tasks have the same adapters

    def __init__(self, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED):
        """seed: of the shuffle of splits that are cut from published ones."""
        self.arguments = arguments or DataTrainingArguments()
        self.seed = seed

    @property
    def targets(self) -> Sequence[str] | None:
        """The target texts of the labels, digits or words as label_style says; None where there are no labels."""
        return self.words if self.arguments.label_style == "words" and self.words else self.labels

    def load(self, split: str) -> Dataset:
        """The raw rows of "train", "validation" or "test"."""
        raise NotImplementedError(f"{type(self).__name__} does not implement load")

    def format(self, row: dict) -> tuple[str, str]:
        """(source, target) of a row, the task's name not yet before the source."""
        return " ".join(f"{name}: {row[name]}" for name in self.fields), self.targets[int(row["label"])]

    def examples(self, split: str, prefix: bool = True) -> Dataset:
        """Return all rows of a split as texts; see `to_texts`."""
        return self.to_texts(self.load(split), prefix)

    def to_texts(self, rows: Dataset, prefix: bool = True) -> Dataset:
        """Turn loaded rows, one by one, into the text columns "source" and "target"; reference and extra fields stay.

        prefix: put the task's name in front of the source (left out if each task has adapters of its own).
        """
        before = f"{self.name} " if prefix and self.named_in_source else ""

        def to_text(row: dict) -> dict:
            source, target = self.format(row)
            return {"source": before + source, "target": target}

        kept = (*self.reference_fields, *self.extra_fields)
        unused = [name for name in rows.column_names if name not in kept]
        return rows.map(to_text, remove_columns=unused, desc=self.name)

    def score(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> dict[str, float]:
        """Every metric of the task, in percent. references: "target" and the reference fields, a value for each row."""
        predicted, wanted = metrics.post_process(predictions, references["target"], self.targets, self.score_range)
        return {name: metrics.METRICS[name](predicted, wanted) for name in self.metrics}

    def collator(self, tokenizer, model):
        """What makes a batch of tokenised rows; None: padding to the longest row."""
        return

    def auxiliary_loss(self, outputs, batch: dict, fields: dict):
        """What is added to the model's loss. outputs: the model's; fields: the batch's extra fields, by name."""
        return 0.0


def average_of(scores: Mapping[str, float]) -> float:
    """The mean of a task's metrics: its `average_metrics`."""
    return float(np.mean(list(scores.values())))


TaskFactory = Callable[[DataTrainingArguments | None, int], Task]
_TASKS: dict[str, TaskFactory] = {}


def register(name: str, factory: TaskFactory) -> None:
    """Make known a task: a class, or what makes one from its arguments and the seed of its splits."""
    _TASKS[name] = factory


def task_names() -> list[str]:
    """The names of all tasks."""
    return sorted(_TASKS)


def get_task(
    name: str, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED, key: str = "task_name"
) -> Task:
    """The task called `name`. Raises ConfigError with the nearest name there is; key: where the name stood."""
    if name in _TASKS:
        return _TASKS[name](arguments, seed)
    near = get_close_matches(name, _TASKS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{key} is {name!r}, which is no task; {hint}known: {', '.join(task_names())}")
