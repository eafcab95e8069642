"""From the texts of tasks to tokens, and from tokens to batches."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow
import pyarrow.compute as pc
import torch
from datasets import Dataset, concatenate_datasets
from torch.nn.utils.rnn import pad_sequence

from common.errors import ConfigError
from seq2seq.arguments import TASK_KEYS, DataTrainingArguments
from seq2seq.data.cache import as_dataset
from seq2seq.data.losses import Losses, losses_of
from seq2seq.data.tasks import Task, get_task
from seq2seq.data.token_cache import tokenised, truncated
from seq2seq.data.verbalizer import decode, encode

LIMITS = {"train": "max_train_samples", "validation": "max_val_samples", "test": "max_test_samples"}


@dataclass(frozen=True)
class TaskRows:
    """The rows of one task in one split.

    texts: the columns "source", "target" and what scoring needs.
    tokens: the columns "input_ids", "labels", "task" and what the task's loss needs, in the order of the texts; None
        before `tokenise`.
    data_hash: a hash of sources and targets; it depends neither on label_style nor on the tasks' names in sources.
    fingerprint: a hash of texts and tokens; None before `tokenise`.
    losses: what of the texts did not become tokens; None before `tokenise`.
    """

    task: Task
    texts: Dataset
    tokens: Dataset | None = None
    data_hash: str | None = None
    fingerprint: str | None = None
    losses: Losses | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def references(self) -> dict[str, list]:
        """Return what predictions are scored against: "target" and the task's reference fields."""
        kept = ["target", *self.task.reference_fields]
        return self.texts.select_columns(kept).to_dict()

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens in each source."""
        return token_lengths(self.tokens, "input_ids")


def tasks_of_splits(arguments: DataTrainingArguments, seed: int) -> dict[str, list[Task]]:
    """Return split -> its tasks. Raises ConfigError for an unknown task, or for tasks that cannot be combined."""
    tasks: dict[str, list[Task]] = {}
    made: dict[str, Task] = {}  # one object per task name, as tasks keep what they have read
    for split in TASK_KEYS:
        key, names = arguments.key_of(split), arguments.tasks_of(split)
        made |= {name: get_task(name, arguments, seed, key) for name in names if name not in made}
        tasks[split] = [made[name] for name in names]
        unscored = [task.name for task in (*tasks["train"], *tasks[split]) if not task.metrics]
        if unscored and (len(names) > 1 or tasks[split] != tasks["train"]):
            raise ConfigError(
                f"{key} is {', '.join(names)}; {unscored[0]}, which has no metrics, cannot be combined with other tasks"
            )
    return tasks


def load_texts(
    tasks: dict[str, list[Task]], splits: Iterable[str], arguments: DataTrainingArguments, seed: int, prefix: bool
) -> dict[str, list[TaskRows]]:
    """Return split -> the rows of its tasks, not yet tokenised.

    tasks: split -> its tasks.
    splits: the splits to load.
    arguments: the keys that limit the rows.
    seed: the run's seed, which samples the rows of low_resource.
    prefix: True to put the task's name in front of each source.
    Raises ConfigError for an empty split, or one with too few rows for low_resource.
    """
    rows: dict[str, list[TaskRows]] = {}
    for split in splits:
        texts = [(task, load_split(task, split, arguments, seed, prefix)) for task in tasks[split]]
        rows[split] = [TaskRows(task, each, data_hash=task.identity(split, each)[:16]) for task, each in texts]
    return rows


def load_split(task: Task, split: str, arguments: DataTrainingArguments, seed: int, prefix: bool) -> Dataset:
    """Return the sources and targets of a split, at most as many as the arguments allow; see `load_texts`."""
    return task.examples(split, prefix, lambda rows: _limited(rows, task, split, arguments, seed))


def _limited(rows: Dataset, task: Task, split: str, arguments: DataTrainingArguments, seed: int) -> Dataset:
    if len(rows) == 0:
        raise ConfigError(f"{TASK_KEYS[split]} is {task.name!r}, whose {split} split is empty")
    if split == "train" and arguments.low_resource is not None:
        if arguments.low_resource > len(rows):
            raise ConfigError(f"low_resource is {arguments.low_resource}; {task.name} has {len(rows)} training rows")
        return rows.shuffle(seed=seed).select(range(arguments.low_resource))
    limit = getattr(arguments, LIMITS[split])
    if limit is None or limit >= len(rows):
        return rows
    rows = rows.shuffle(seed=task.seed)  # files are often sorted by label
    return rows.select(range(limit) if task.group_field is None else whole_groups(rows[task.group_field], limit))


def whole_groups(groups: Iterable, limit: int) -> list[int]:
    """Return the row numbers of whole groups, at least one, that together have at most `limit` rows if possible.

    groups: the group of each row.
    """
    members: dict[object, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    chosen: list[int] = []
    for rows in members.values():
        if not chosen or len(chosen) + len(rows) <= limit:
            chosen += rows
    return chosen


def tokenise(rows: TaskRows, tokenizer, arguments: DataTrainingArguments, *, by_length: bool = False) -> TaskRows:
    """Return the rows with their tokens, truncated to the maximum lengths (which include the end token).

    by_length: True to sort the rows by source length, so that batches need little padding.
    Raises ConfigError if a label or number cannot be decoded from its tokens, or if truncation makes most rows alike.
    """
    texts, task = rows.texts, rows.task
    limits, words = (arguments.max_source_length, arguments.max_target_length), texts["target"][:]
    if task.verbalizer is not None:
        words = list(map(task.verbalizer.words.__getitem__, words))
    if task.targets is not None or task.score_range is not None:
        _check_targets(words, tokenizer, arguments.max_target_length, arguments.label_style)
    spoken = as_dataset(pyarrow.table({"source": texts.with_format("arrow")["source"][:], "target": words}))
    tokens, fingerprint = tokenised(spoken, tokenizer, *limits)
    losses = losses_of(texts, tokens, limits, "exact" in task.metrics, tokenizer)
    table = tokens.data.table.select(["input_ids", "labels"])
    for name in task.extra_fields:
        table = table.append_column(name, texts.with_format("arrow")[name][:])
    table = table.append_column("task", pyarrow.repeat(task.name, len(table)))
    if by_length:  # shortest first: the last batches are padded with rows from the beginning, which should be short
        order = np.argsort(pc.list_value_length(table["input_ids"]).to_numpy(), kind="stable")
        texts, table = texts.select(order), table.take(order)
    return replace(rows, texts=texts, tokens=as_dataset(table), fingerprint=fingerprint, losses=losses)


def _check_targets(targets: Iterable[str], tokenizer, limit: int, style: str) -> None:
    """Raise ConfigError unless every target can be decoded from its tokens, as scores compare decoded texts."""
    for target in sorted(set(targets)):
        (said,) = decode(truncated(encode([target], tokenizer), limit), tokenizer)
        if said.split() != target.split():
            raise ConfigError(
                f"the target {target!r} (label_style {style}) becomes {said!r} when it is tokenised with "
                f"max_target_length {limit} and decoded; change label_style, tokenizer_name or max_target_length"
            )


def token_lengths(tokens: Dataset, column: str) -> np.ndarray:
    """Return the number of tokens of each row in a column."""
    return pc.list_value_length(tokens.with_format("arrow")[column][:]).to_numpy()


def longest_target(splits: Iterable[Sequence[TaskRows]]) -> int:
    """Return the number of tokens of the longest target, with its end token and the decoder's start token."""
    return 1 + max(int(token_lengths(rows.tokens, "labels").max()) for split in splits for rows in split)


def concatenate_tokens(rows: Sequence[TaskRows]) -> Dataset:
    """Return the tokens of all tasks, one task after the other."""
    return concatenate_datasets([each.tokens for each in rows])


class PaddingCollator:
    """Makes a batch of rows of tokens, padding each column to its longest row.

    A batch has input_ids, attention_mask and labels, each (rows, length), the labels padded with -100. With tell_tasks
    it also has "task": the one task of all rows, or the task of each row, with rows of the same task together. Where
    rows have a weight it also has "weight", (rows,).
    """

    def __init__(self, pad: int, tell_tasks: bool):
        self.pad, self.tell_tasks = pad, tell_tasks

    def __call__(self, rows: list[dict]) -> dict:
        if self.tell_tasks:
            rows = sorted(rows, key=lambda row: row["task"])
        inputs = [torch.tensor(row["input_ids"]) for row in rows]
        batch = {
            "input_ids": pad_sequence(inputs, batch_first=True, padding_value=self.pad),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in inputs], batch_first=True),
            "labels": pad_sequence([torch.tensor(row["labels"]) for row in rows], batch_first=True, padding_value=-100),
        }
        if self.tell_tasks:
            names = [row["task"] for row in rows]
            batch["task"] = names[0] if len(set(names)) == 1 else names
        if "weight" in rows[0]:
            batch["weight"] = torch.tensor([row["weight"] for row in rows])
        return batch


def collator_for(task: Task, tokenizer, model):
    """Return the task's own collator, or one that pads and, if each task has adapters of its own, names the task."""
    several = len(model.task_switch.tasks) > 1
    return task.collator(tokenizer, model) or PaddingCollator(tokenizer.pad_token_id, several)
