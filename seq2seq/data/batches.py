"""Texts of a task to tokens, and tokens to batches."""

from collections.abc import Iterable

from datasets import Dataset
from transformers import DataCollatorForSeq2Seq

from adapters import ConfigError
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data.tasks import Task, get_task

LIMITS = {"train": "max_train_samples", "validation": "max_val_samples", "test": "max_test_samples"}


def load_texts(arguments: DataTrainingArguments, splits: Iterable[str], seed: int, prefix: bool):
    """(split -> task, split -> Dataset of "source" and "target") for the splits that a run needs."""
    names = {
        "train": ("task_name", arguments.task_name),
        "validation": ("eval_dataset_name", arguments.eval_dataset_name or arguments.task_name),
        "test": ("test_dataset_name", arguments.test_dataset_name or arguments.task_name),
    }
    tasks = {split: get_task(name, key) for split, (key, name) in names.items()}
    for split, (key, name) in names.items():
        if tasks[split] is not tasks["train"] and not (tasks[split].metrics and tasks["train"].metrics):
            raise ConfigError(
                f"{key} is {name!r}, task_name {arguments.task_name!r}; a task without metrics has no other beside it"
            )
    return tasks, {split: load_split(tasks[split], split, arguments, seed, prefix) for split in splits}


def load_split(task: Task, split: str, arguments: DataTrainingArguments, seed: int, prefix: bool) -> Dataset:
    """Sources and targets of a split, at most as many as the arguments allow. Raises ConfigError if there are none."""
    limit = getattr(arguments, LIMITS[split])
    rows = task.examples(split, seed=seed, data_dir=arguments.data_dir, prefix=prefix)
    if len(rows) == 0:
        raise ConfigError(f"task_name is {task.name!r}, whose {split} split is empty")
    if limit is None or limit >= len(rows):
        return rows
    return rows.shuffle(seed=seed).select(range(limit))  # files are often sorted by label


def tokenise(rows: Dataset, tokenizer, arguments: DataTrainingArguments) -> Dataset:
    """The texts as "input_ids", "attention_mask" and "labels", cut to the maximal lengths, end token included."""

    def encode(batch: dict) -> dict:
        encoded = tokenizer(batch["source"], max_length=arguments.max_source_length, truncation=True)
        targets = tokenizer(batch["target"], max_length=arguments.max_target_length, truncation=True)
        return {**encoded, "labels": targets["input_ids"]}

    _check_targets(rows["target"], tokenizer, arguments.max_target_length)
    return rows.map(encode, batched=True, remove_columns=["source", "target"], desc="tokens")


def _check_targets(targets: Iterable[str], tokenizer, limit: int) -> None:
    """Raise ConfigError unless every target can be read again from its tokens: scores compare decoded texts."""
    for target in sorted(set(targets)):
        tokens = tokenizer(target, max_length=limit, truncation=True)["input_ids"]
        if tokenizer.decode(tokens, skip_special_tokens=True).split() != target.split():
            raise ConfigError(
                f"the target {target!r} does not survive tokenizer_name and max_target_length {limit}: "
                f"read again it is {tokenizer.decode(tokens, skip_special_tokens=True)!r}"
            )


def longest_target(splits: Iterable[Dataset]) -> int:
    """Tokens of the longest target, with its end token and the decoder's start token."""
    return 1 + max(len(labels) for split in splits for labels in split["labels"])


def collator_for(task: Task, tokenizer, model):
    """What makes batches for the trainer: the task's own collator, or padding to the longest row."""
    return task.collator(tokenizer, model) or DataCollatorForSeq2Seq(tokenizer, model=model)
