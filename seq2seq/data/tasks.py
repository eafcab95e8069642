"""The definition of a task: where its data come from, its text format, its labels and its metrics."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import pyarrow
from datasets import Dataset

from common.errors import ConfigError
from seq2seq import metrics
from seq2seq.arguments import SPLIT_SEED, DataTrainingArguments
from seq2seq.data.cache import as_dataset, hash_of
from seq2seq.data.verbalizer import Verbalizer

SPLITS = ("train", "validation", "test")


class Task:
    """One data set as a text-to-text task.

    A task sets `name`, `metrics`, and `labels` (for classification) or `score_range` (for a number) or neither (for
    free text). It implements `load` and, unless `fields` and a column "label" are enough, `source` and `target`.

    name: the name in task_name.
    metrics: names in `seq2seq.metrics.METRICS`.
    labels: the target texts of the classes.
    words: the target texts of the classes with label_style "words", if they differ.
    score_range: (lowest, highest) target.
    fields: columns that make up the source, in order: "sentence1: .. sentence2: ..".
    reference_fields: columns that scoring needs besides the target.
    group_field: a reference field; rows with the same value are scored together and stay in the same split.
    extra_fields: columns that the task's own collator needs.
    batch_fields: what that collator adds to a batch for the task's own loss.
    token_weight: the weight of the loss on target tokens, beside the task's own loss.
    given_words: label -> the word that the model says for it, where the user chose it.
    named_in_source: True if sources start with the task's name when tasks share adapters.
    """

    name: str
    metrics: Sequence[str] = ("accuracy",)
    labels: Sequence[str] | None = None
    words: Sequence[str] | None = None
    score_range: tuple[float, float] | None = None
    fields: Sequence[str] = ()
    reference_fields: Sequence[str] = ()
    group_field: str | None = None
    extra_fields: Sequence[str] = ()
    batch_fields: Sequence[str] = ()
    token_weight = 1.0
    named_in_source = True
    given_words: Mapping[str, str] = {}

    def __init__(self, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED):
        """Make a task.

        arguments: the data keys of the run; default: all at their defaults.
        seed: for the shuffle that cuts splits from published ones.
        """
        self.arguments = arguments or DataTrainingArguments()
        self.seed = seed
        self.verbalizer: Verbalizer | None = None  # set once the tokenizer is known, if there are labels

    @property
    def data_name(self) -> str:
        """The name of the task's data in results and reports."""
        return self.name

    @property
    def targets(self) -> Sequence[str] | None:
        """The target texts of the labels, digits or words as label_style says; None if there are no labels."""
        return self.words if self.arguments.label_style == "words" and self.words else self.labels

    def load(self, split: str) -> Dataset:
        """Return the raw rows of "train", "validation" or "test"."""
        raise NotImplementedError(f"{type(self).__name__} does not implement load")

    @property
    def source_columns(self) -> Sequence[str]:
        """The columns that `source` reads."""
        return self.fields

    def source(self, row: Mapping) -> str:
        """Return the source of a row, without the task's name."""
        return " ".join(f"{name}: {row[name]}" for name in self.fields)

    def target(self, row: Mapping) -> str:
        """Return the target of a row."""
        return self.targets[int(row["label"])]

    def format(self, row: Mapping) -> tuple[str, str]:
        """Return the source and the target of a row, without the task's name."""
        return self.source(row), self.target(row)

    def examples(
        self, split: str, prefix: bool = True, select: Callable[[Dataset], Dataset] = lambda rows: rows
    ) -> Dataset:
        """Return a split with the text columns "source" and "target"; reference and extra fields stay.

        prefix: put the task's name in front of the source (left out if each task has adapters of its own).
        select: picks rows before they become texts.
        """
        rows = select(self.load(split))
        before = f"{self.name} " if prefix and self.named_in_source else ""
        columns = rows.to_dict()
        pairs = [self.format(dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]
        kept = [name for name in columns if name in (*self.reference_fields, *self.extra_fields)]
        texts = {"source": [before + source for source, _ in pairs], "target": [target for _, target in pairs]}
        return as_dataset(pyarrow.table({**{name: columns[name] for name in kept}, **texts}))

    def answers(self, texts: Sequence[str]) -> list[str]:
        """Return what generated texts stand for: the labels whose words they are, any other text as it is."""
        return [text if self.verbalizer is None else self.verbalizer.label_of(text) for text in texts]

    def score(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> dict[str, float]:
        """Return every metric of the task, in percent.

        predictions: the predicted texts.
        references: "target" and the reference fields, with a value for each row.
        """
        predicted, wanted = self.compared(predictions, references)
        return {name: metrics.METRICS[name](predicted, wanted) for name in self.metrics}

    def compared(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> tuple:
        """Return predictions and targets as the metrics compare them: label numbers, numbers or texts."""
        return metrics.post_process(predictions, self.accepted(references), self.targets, self.score_range)

    def accepted(self, references: Mapping[str, Sequence]) -> Sequence:
        """Return what counts as right in each row: a text, or a list of texts if any of several does."""
        return references["target"]

    def right(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> Sequence[str]:
        """Return the target of each row; of several that are accepted, the one that was predicted."""
        return references["target"]

    def identity(self, split: str, texts: Dataset) -> str:
        """Return a hash that is the same for the same rows, however label_style and shared adapters change them."""
        before = f"{self.name} "
        sources = [source.removeprefix(before) if self.named_in_source else source for source in texts["source"][:]]
        numbers = {target: str(n) for n, target in enumerate(self.targets or ())}
        targets = [numbers.get(target, target) for target in texts["target"][:]]
        return hash_of([sources, targets])

    def collator(self, tokenizer, model):
        """Return the task's own collator of tokenised rows, or None to pad them to the longest row."""
        return

    def initialise(self, model, tokenizer) -> None:
        """Give a model with random weights a start that the task knows of; by default nothing is changed."""

    def auxiliary_loss(self, outputs, batch: dict, fields: dict):
        """Return what is added to the model's loss.

        outputs: the model's outputs.
        batch: the model's inputs.
        fields: the batch's `batch_fields`, by name.
        """
        return 0.0


def average_of(scores: Mapping[str, float]) -> float:
    """Return the mean of a task's metrics, its `average_metrics`."""
    return float(np.mean(list(scores.values())))


TaskFactory = Callable[[DataTrainingArguments | None, int], Task]
_TASKS: dict[str, TaskFactory] = {}


def register(name: str, factory: TaskFactory) -> None:
    """Register a task: a class, or a function that makes one from the data keys and the seed of the splits."""
    _TASKS[name] = factory


def task_names() -> list[str]:
    """Return the names of all tasks."""
    return sorted(_TASKS)


def get_task(
    name: str, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED, key: str = "task_name"
) -> Task:
    """Return the task called `name`. Raises ConfigError with the closest known name.

    key: the configuration key that named the task.
    """
    if name in _TASKS:
        return _TASKS[name](arguments, seed)
    near = get_close_matches(name, _TASKS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{key} is {name!r}, an unknown task; {hint}known tasks: {', '.join(task_names())}")
