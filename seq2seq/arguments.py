"""The keys of a run that are not the adapters': model, data, and training (transformers' own, extended)."""

import os
from dataclasses import dataclass
from typing import Literal

import torch
from transformers import Seq2SeqTrainingArguments

from adapters.adapter_configuration import key
from adapters.errors import ConfigError, require

# Those of transformers' keys that it does not check, or only when the run is under way.
ALLOWED = {
    "at least 1": (
        "per_device_train_batch_size",
        "per_device_eval_batch_size",
        "gradient_accumulation_steps",
        "generation_num_beams",
        "save_total_limit",
    ),
    "at least 2": ("generation_max_length",),  # the start token and one more
    "above 0": ("num_train_epochs", "logging_steps", "eval_steps", "save_steps"),
    "at least 0": (
        "learning_rate",
        "weight_decay",
        "max_grad_norm",
        "warmup_steps",
        "dataloader_num_workers",
        "adam_epsilon",
    ),
    "at least 0 and below 2**32": ("seed", "data_seed", "seeds"),
    "at least 0 and below 1": ("adam_beta1", "adam_beta2", "label_smoothing_factor"),
    "a name, not empty": ("experiment_name", "output_dir"),
}


SPLIT_SEED = 42


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

    @property
    def all_tasks(self) -> set[str]:
        """The names of all tasks of the run."""
        named = (self.task_name, self.eval_dataset_name, self.test_dataset_name)
        return {name for names in named if names for name in ([names] if isinstance(names, str) else names)}


@dataclass
class TrainingArguments(Seq2SeqTrainingArguments):
    """transformers' training arguments and what it does not have."""

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

    @property
    def device(self) -> torch.device:
        """As the base class; of several processes on a CPU not "cpu:0", to which torch loads no checkpoint."""
        device = super().device
        return torch.device("cpu") if device.type == "cpu" else device

    @property
    def split_seed(self) -> int:
        """Of the shuffles that cut splits and limit rows: the same for runs that differ in `seed`."""
        return SPLIT_SEED if self.data_seed is None else self.data_seed

    def __post_init__(self):
        for allowed, names in ALLOWED.items():
            require(self, allowed, *names)
        if self.dataloader_drop_last:
            raise ConfigError(
                "dataloader_drop_last is true; it would leave out rows of validation and test: set it to false"
            )
        self.output_dir = os.path.normpath(self.output_dir)  # checkpoints are found again by their path
        if not torch.accelerator.is_available():
            self.use_cpu = True  # else transformers refuses bf16, which CPUs can do
            self.dataloader_pin_memory = False
        super().__post_init__()
