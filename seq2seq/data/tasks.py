"""The task contract: where the data of a task come from, its text format, its labels and its metrics."""

from collections.abc import Sequence
from difflib import get_close_matches

from datasets import Dataset

from adapters import ConfigError
from seq2seq import metrics

SPLITS = ("train", "validation", "test")


class Task:
    """One data set, posed as text to text.

    A task says `name`, `metrics` (names in `seq2seq.metrics.METRICS`) and either `labels` (the target texts, for a
    choice among few) or a `score_range` (for a number), or neither (free text). It implements `load` and `format`.
    """

    name: str
    metrics: Sequence[str] = ("accuracy",)
    labels: Sequence[str] | None = None
    score_range: tuple[float, float] | None = None
    extra_fields: Sequence[str] = ()  # columns of `load` that the task's own collator or loss needs

    def load(self, split: str, seed: int, data_dir: str | None) -> Dataset:
        """The raw rows of "train", "validation" or "test". seed: of a shuffle that the split needs, if it needs one."""
        raise NotImplementedError(f"{type(self).__name__} does not implement load")

    def format(self, row: dict) -> tuple[str, str]:
        """(source, target) of a row, the task's name not yet before the source."""
        raise NotImplementedError(f"{type(self).__name__} does not implement format")

    def examples(self, split: str, *, seed: int = 42, data_dir: str | None = None, prefix: bool = True) -> Dataset:
        """The split as a Dataset with the text columns "source" and "target", and the extra fields.

        prefix: put the task's name before the source (left out where each task has adapters of its own).
        """
        rows = self.load(split, seed, data_dir)

        def to_text(row: dict) -> dict:
            source, target = self.format(row)
            return {"source": f"{self.name} {source}" if prefix else source, "target": target}

        unused = [name for name in rows.column_names if name not in self.extra_fields]
        return rows.map(to_text, remove_columns=unused, desc=f"{self.name} {split}")

    def score(self, predictions: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
        """Every metric of the task, in percent."""
        predicted, wanted = metrics.post_process(predictions, targets, self.labels, self.score_range)
        return {name: metrics.METRICS[name](predicted, wanted) for name in self.metrics}

    def collator(self, tokenizer, model):
        """What makes a batch of tokenised rows; None: padding to the longest row."""
        return

    def auxiliary_loss(self, outputs, batch: dict, fields: dict):
        """What is added to the model's loss. outputs: the model's; fields: the batch's extra fields, by name."""
        return 0.0


_TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make `task` known by its name."""
    _TASKS[task.name] = task
    return task


def task_names() -> list[str]:
    """The names of all tasks."""
    return sorted(_TASKS)


def get_task(name: str, key: str = "task_name") -> Task:
    """The task called `name`. Raises ConfigError with the nearest name there is."""
    if name in _TASKS:
        return _TASKS[name]
    near = get_close_matches(name, _TASKS, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"{key} is {name!r}, which is no task; {hint}known: {', '.join(task_names())}")
