"""The keys of a run beside those of the adapters: model, data and training.

Does not import transformers, which takes seconds: a misspelt key is answered before.
"""

from dataclasses import dataclass
from typing import Literal

from common.errors import ConfigError, require
from common.keys import key

SPLIT_SEED = 42  # of the shuffles that cut splits, unless data_seed is set
TASK_KEYS = {"train": "task_name", "validation": "eval_dataset_name", "test": "test_dataset_name"}


@dataclass
class ModelArguments:
    """Which backbone and tokenizer."""

    model_name_or_path: str | None = key(None, "Hub id, local directory, or t5-nano; null: start from scratch.")
    model_config: dict | str | None = key(
        None,
        "From scratch: fields of a T5Config, or a model whose sizes to take (t5-base, t5-nano, ..).",
    )
    tokenizer_name: str | None = key(
        None, "Tokenizer, if not the model's; null from scratch: trained on the training text."
    )
    tokenizer_vocab_size: int = key(8000, "Pieces of a tokenizer that is trained.")
    initial_embedding: Literal["minilm"] | None = key(
        None, "From scratch: start the embedding from the word-piece vectors of the packaged sentence encoder."
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key("float32", "Precision of the loaded weights.")
    save_dtype: Literal["float32", "bfloat16", "float16"] = key("float32", "Precision of a model that is saved whole.")

    def __post_init__(self):
        require(self, "at least 1", "tokenizer_vocab_size")


@dataclass
class DataTrainingArguments:
    """Which task, and how its rows become tokens."""

    task_name: str | list[str] = key("vader-movie", "The task to train on, or a list of tasks to train on together.")
    eval_dataset_name: str | list[str] | None = key(None, "The task or tasks to validate on; null: task_name.")
    test_dataset_name: str | list[str] | None = key(None, "The task or tasks to test on; null: task_name.")
    data_dir: str | None = key(
        None, "A local copy of the hub's data sets: parquet, JSON lines or CSV, in their columns and splits."
    )
    label_style: Literal["digits", "words"] = key("digits", "Labels as targets: 0 or 1, or words such as entailment.")
    max_source_length: int = key(128, "Tokens of a source, longer ones are cut.")
    max_target_length: int = key(128, "Tokens of a target, longer ones are cut.")
    max_train_samples: int | None = key(
        None, "Use only so many training rows of each task, the first of a shuffle by data_seed."
    )
    max_val_samples: int | None = key(None, "Use only so many validation rows, likewise.")
    max_test_samples: int | None = key(None, "Use only so many test rows, likewise.")
    low_resource: int | list[int] | None = key(
        None, "Train on so many rows of each task, drawn by the run's seed; a list: one run after the other."
    )

    # Your own data: task_name "file".
    train_file: str | None = key(None, "Training rows of the task file: .csv, .tsv, .jsonl, .json or .parquet.")
    validation_file: str | None = key(None, "Its validation rows; null: cut from the training file.")
    test_file: str | None = key(None, "Its test rows; null: cut from the training file.")
    source_template: str | None = key(None, 'Its source text, with columns in braces: "sentence: {text}".')
    target_column: str = key("label", "Its column with the target text.")
    labels: list[str] | None = key(None, "Its allowed targets; null: any text or number.")
    metrics: list[str] | None = key(None, "How it is scored; null: accuracy with labels, else exact match (em).")

    # Several tasks at once.
    mixing: Literal["proportional", "equal", "all"] = key(
        "proportional",
        "How often a task is drawn: by min(rows, mixing_limit) ** (1 / mixing_temperature), all alike, or each row of "
        "each task once in an epoch.",
    )
    mixing_limit: int | None = key(None, "Rows beyond which a task counts as no larger; null: no limit.")
    mixing_temperature: float = key(1.0, "1: by size; larger: more alike.")
    mixed_batches: bool = key(False, "Rows of several tasks in one batch, else each batch is of one task.")

    def __post_init__(self):
        for name in TASK_KEYS.values():
            self._check_tasks(name)
        require(self, "at least 1", "max_source_length", "max_target_length", "mixing_limit")
        limits = ("max_train_samples", "max_val_samples", "max_test_samples")
        require(self, "at least 1", *limits, "low_resource")
        if self.low_resource is not None and self.max_train_samples is not None:
            raise ConfigError("low_resource and max_train_samples are both set; each is a number of training rows")
        require(self, "above 0", "mixing_temperature")
        own = ("train_file", "validation_file", "test_file", "source_template", "labels", "metrics")
        given = [name for name in own if getattr(self, name) is not None]
        if given and "file" not in self.all_tasks:
            raise ConfigError(f"{given[0]} is set, which only task_name 'file' reads; the run has no such task")

    def key_of(self, split: str) -> str:
        """Return the key that names the tasks of a split."""
        return "task_name" if getattr(self, TASK_KEYS[split]) is None else TASK_KEYS[split]

    def tasks_of(self, split: str) -> list[str]:
        """Return the names of the tasks of a split: "train", "validation" or "test"."""
        names = getattr(self, self.key_of(split))
        return [names] if isinstance(names, str) else names

    @property
    def all_tasks(self) -> set[str]:
        """The names of all tasks of the run."""
        return {name for split in TASK_KEYS for name in self.tasks_of(split)}

    def _check_tasks(self, key: str) -> None:
        names = getattr(self, key)
        if names == []:
            raise ConfigError(f"{key} is an empty list; name at least one task")
        if isinstance(names, list):
            twice = [name for name in names if names.count(name) > 1]
            if twice:
                raise ConfigError(f"{key} names {twice[0]!r} twice; two tasks cannot have adapters of one name")


@dataclass
class OwnTrainingArguments:
    """The training keys that transformers does not have, or has with another default."""

    do_test: bool = key(True, "Score the test split at the end, with the best model if load_best_model_at_end.")
    predict_with_generate: bool = key(True, "Score generated text by the task's metrics; false: the loss alone.")
    overwrite_output_dir: bool = key(False, "Replace a finished run, or another one, in output_dir.")
    resume_from_checkpoint: bool | None = key(
        None, "null: go on with an unfinished run of the same configuration; true: only go on; false: start it anew."
    )
    seeds: list[int] | None = key(
        None, "Repeat the run with each of these seeds, in output_dir/seed_N, and say mean and standard deviation."
    )
    experiment_name: str = key("experiment", "Name of the run; the file's name where the file does not say.")
    project_name: str = key("t5-tensor-lab", "Project at wandb.")
    report_to: str | list[str] = key("none", "transformers' own trackers; ours is log_to_wandb.")
    log_to_wandb: bool = key(False, "Log to wandb; otherwise nothing is sent anywhere.")
    dry_run: bool = key(False, "Print what would be trained and write it to dry_run.json; load and train nothing.")
    print_num_parameters: bool = key(False, "Print the parameters by component before training.")
    compute_memory: bool = key(False, "Measure the memory of each layer in one training step before training.")
    compute_time: bool = key(False, "Report the time of a training step and of an epoch.")
    merge_and_export: bool = key(False, "Write the trained model as a plain T5, with tokenizer, to output_dir/merged.")
