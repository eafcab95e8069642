"""The keys of a run other than those of the adapters: model, data and training.

Does not import transformers, which takes seconds, so that a misspelt key is reported at once.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from common.errors import ConfigError, require
from common.keys import key

SPLIT_SEED = 42  # for the shuffles that cut splits, unless data_seed is set
# Keys that only the task "file" reads.
OF_OWN_FILES = (
    *("train_file", "validation_file", "test_file", "data_name", "source_template", "optional_columns", "labels"),
    *("metrics", "target_step", "multiple", "missing_values", "format", "delimiter", "encoding", "columns"),
)
TASK_KEYS = {"train": "task_name", "validation": "eval_dataset_name", "test": "test_dataset_name"}


@dataclass
class ModelArguments:
    """The backbone and the tokenizer."""

    model_name_or_path: str | None = key(
        None,
        "Pretrained model: a hub id, a local directory (that of an earlier run includes its adapters) or t5-nano; "
        "null: a new model with random weights, of the sizes in model_config.",
    )
    model_config: dict | str | None = key(
        None,
        "Sizes of a new model, read only if model_name_or_path is null and then required: an object of T5Config "
        "fields, or the name of a model to take the sizes from (t5-base, t5-nano, ..).",
    )
    tokenizer_name: str | None = key(
        None,
        "Tokenizer: a hub id, a local directory or t5-nano; null: the model's own, or, for a new model, one trained "
        "on the sources of the training split.",
    )
    tokenizer_vocab_size: int = key(8000, "Vocabulary size of a tokenizer that is trained, without its 100 sentinels.")
    initial_embedding: Literal["teacher"] | None = key(
        None,
        'With "distillation", for a new model: start with an encoder that maps the word pieces of the teacher, '
        "all-mpnet-base-v2, linearly to what it learns; null: random.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", "Data type in which the weights of a pretrained model are loaded."
    )
    save_dtype: Literal["float32", "bfloat16", "float16"] = key(
        "float32", "Data type of the saved weights if the whole model is saved; adapters are saved as they are."
    )

    def __post_init__(self):
        require(self, "at least 1", "tokenizer_vocab_size")


@dataclass
class DataTrainingArguments:
    """The tasks, and how their rows become tokens."""

    task_name: str | list[str] = key(
        "vader-movie", "Task to train on, or a list of tasks to train on together; docs/tasks.md lists them all."
    )
    eval_dataset_name: str | list[str] | None = key(
        None, "Task or list of tasks to validate on; null: the tasks of task_name."
    )
    test_dataset_name: str | list[str] | None = key(
        None, "Task or list of tasks to test on; null: the tasks of task_name."
    )
    data_dir: str | None = key(
        None,
        "Directory with a local copy of GLUE, SuperGLUE or SQuAD, as it was downloaded or in one of the hub's layouts; "
        "null: load them from the hub.",
    )
    label_style: Literal["digits", "words"] = key(
        "digits", 'Target texts of labels: "digits" (0, 1, ..) or "words" (such as entailment).'
    )
    max_source_length: int = key(128, "Maximum number of tokens in a source; longer sources are truncated.")
    max_target_length: int = key(128, "Maximum number of tokens in a target; longer targets are truncated.")
    max_train_samples: int | None = key(
        None, "Maximum number of training rows of each task, sampled with data_seed; null: all rows."
    )
    max_val_samples: int | None = key(
        None, "Maximum number of validation rows of each task, sampled with data_seed; null: all rows."
    )
    max_test_samples: int | None = key(
        None, "Maximum number of test rows of each task, sampled with data_seed; null: all rows."
    )
    low_resource: int | list[int] | None = key(
        None,
        "Number of training rows of each task, sampled with the run's seed; a list: one run for each number; "
        "null: all rows.",
    )

    # Your own data: task_name "file".
    train_file: str | None = key(
        None,
        'Training rows of the task "file": CSV, TSV, JSON lines, a JSON array or parquet; may be null if each split '
        "that the run uses has a file of its own.",
    )
    validation_file: str | None = key(
        None, 'Validation rows of the task "file"; null: 15% of train_file is held out for validation.'
    )
    test_file: str | None = key(None, 'Test rows of the task "file"; null: 15% of train_file is held out for testing.')
    data_name: str | None = key(
        None, 'Name of the data of the task "file" in results and reports; null: that of the file, without its ending.'
    )
    source_template: str | None = key(
        None, 'Source text of the task "file" (which requires it), with column names in braces: "sentence: {text}".'
    )
    optional_columns: list[str] | None = key(
        None, "Columns in source_template that may be empty; null: none, a row with an empty one cannot be used."
    )
    target_column: str = key("label", 'Column of the task "file" that holds the target text.')
    labels: dict | list[str] | Literal["auto"] | None = key(
        None,
        'Allowed targets of the task "file", as the file has them: a list, or "auto" for those that occur. The '
        "model says a word for each, which is found from the label; an object names the words: "
        '{"Feature request": "feature"}. null: any text or number.',
    )
    metrics: list[str] | None = key(None, 'Metrics of the task "file"; null: accuracy if labels is set, else exact.')
    target_step: float | None = key(
        None, "Step, such as 0.2, to whose multiples targets that are numbers are rounded; null: they are as they are."
    )
    multiple: Literal["join", "first"] | None = key(
        None,
        'What becomes of lists in columns of source_template: "join" their items or take the "first". Of a list of '
        "targets the first is trained on, and any is right. null: such rows cannot be used.",
    )
    missing_values: list[str] | None = key(
        None,
        "Texts that stand for a missing value, as an empty cell does; null: nan, NaN, NA, N/A, #N/A, NaT, null, NULL, "
        "None and <NA>.",
    )
    on_bad_rows: Literal["error", "skip"] = key(
        "error", 'What becomes of rows that cannot be used: "error" lists them and ends, "skip" warns.'
    )
    format: Literal["csv", "tsv", "jsonl", "json", "parquet"] | None = key(
        None, "Format of the files; null: found from their content and names."
    )
    delimiter: str | None = key(None, "Character between the cells of CSV and TSV; null: found from the first line.")
    encoding: str | None = key(
        None, "Encoding of the files; null: UTF-8, or with a warning cp1252 for a file that is not UTF-8."
    )
    columns: list[str] | None = key(
        None, "Names of the columns of CSV and TSV without a header; null: the first line is a header."
    )
    class_weights: Literal["balanced"] | None = key(
        None,
        '"balanced": in training, each class of a task with labels has the same share of the loss, however rare it is: '
        "of n rows of k classes, a row of a class with m rows weighs n / (k * m); null: all rows weigh the same.",
    )

    # Text without labels, to pre-train on.
    text_sources: dict | None = key(
        None,
        'Training text of "span-corruption", "distillation" and "span-corruption+distillation", and how often an epoch '
        'has each of its sentences: {"rated": 4, "wordnet": 1}. rated: the sentences of the rated sets; variants: the '
        'same with other words; the others are wordnet, newspapers, wikipedia, emails. null: {"rated": 1}.',
    )
    decoder_targets: dict | None = key(
        None,
        'What the decoder learns in "span-corruption+distillation", and how often: {"spans": 1, "copies": 4, '
        '"answers": 15}. A batch has either masked spans to fill in, the source to copy, or questions about it to '
        "answer. null: each equally often.",
    )

    # Several tasks at once.
    mixing: Literal["proportional", "equal", "all"] = key(
        "proportional",
        'How often each of several tasks is sampled: "proportional" to min(rows, mixing_limit) ** '
        '(1 / mixing_temperature), "equal" for all tasks, or "all": each row of each task once per epoch.',
    )
    mixing_limit: int | None = key(
        None,
        "Largest number of rows that a task counts as, both in proportional mixing and in the length of an epoch; "
        "null: no limit.",
    )
    mixing_temperature: float = key(
        1.0, "Temperature of proportional mixing: 1 samples tasks by size, larger values more equally."
    )
    mixed_batches: bool = key(
        False, "true: a batch may hold rows of several tasks; false: each holds rows of one task."
    )

    def __post_init__(self):
        for name in TASK_KEYS.values():
            self._check_tasks(name)
        require(self, "at least 1", "max_source_length", "max_target_length", "mixing_limit")
        limits = ("max_train_samples", "max_val_samples", "max_test_samples")
        require(self, "at least 1", *limits, "low_resource")
        if self.low_resource is not None and self.max_train_samples is not None:
            raise ConfigError("low_resource and max_train_samples both limit the training rows; set only one of them")
        require(self, "above 0", "mixing_temperature", "target_step")
        given = [name for name in OF_OWN_FILES if getattr(self, name) is not None]
        if given and "file" not in self.all_tasks:
            raise ConfigError(
                f"{given[0]} is set, but only task_name 'file' reads it; this run does not have that task"
            )

    def key_of(self, split: str) -> str:
        """Return the key that sets the tasks of a split."""
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
            name, times = Counter(names).most_common(1)[0]
            if times > 1:
                raise ConfigError(f"{key} names {name!r} twice; name each task once")


@dataclass
class OwnTrainingArguments:
    """The training keys that transformers does not have, or that have another default here."""

    do_test: bool = key(True, "Evaluate on the test split at the end, with the best model if load_best_model_at_end.")
    predict_with_generate: bool = key(
        True, "true: score generated text with the task's metrics; false: report the loss only."
    )
    overwrite_output_dir: bool = key(
        False,
        "true: replace a finished run, or a run of another configuration, in output_dir, if it has the same "
        "experiment_name; false: refuse to.",
    )
    resume_from_checkpoint: bool | None = key(
        None,
        "null: resume the unfinished run of the same configuration in output_dir, if there is one; true: resume it, "
        "and fail if there is none; false: start over.",
    )
    early_stopping_patience: int | None = key(
        None,
        "Stop training after this many evaluations in a row in which metric_for_best_model did not improve; requires "
        "load_best_model_at_end; null: train to the end.",
    )
    split_by_length: bool | None = key(
        None,
        "Compute the gradient of a batch in parts of rows of similar length, with less padding; the sum is the same up "
        "to rounding, but dropout draws other numbers. null: true on a CPU, in one process and without dropout, noise "
        "and torch_compile.",
    )
    seeds: list[int] | None = key(
        None,
        "Repeat the run with each of these seeds, in output_dir/seed_N, and report mean and standard deviation; "
        "null: one run, with seed.",
    )
    experiment_name: str = key(
        "experiment", "Name of the run, and of its directory below outputs/; if not set: the name of the JSON file."
    )
    project_name: str = key("t5-tensor-lab", "Project name at wandb, if log_to_wandb is true.")
    report_to: str | list[str] = key(
        "none", "Trackers that transformers itself reports to (such as tensorboard); for wandb set log_to_wandb."
    )
    log_to_wandb: bool = key(False, "Log to wandb; false: nothing is sent anywhere.")
    dialect: Literal["compacter", "ttcompacter", "none"] | None = key(
        None,
        "Program that the file was written for, see docs/migration.md; none: this one; null: found from the keys of "
        "the file, and announced.",
    )
    dry_run: bool = key(
        False, "Print what would be trained and write it to output_dir/dry_run.json; load and train nothing."
    )
    print_num_parameters: bool = key(False, "Print the number of parameters of each component before training.")
    compute_memory: bool = key(False, "Before training, measure the memory of each layer in one training step.")
    compute_time: bool = key(False, "Report the time per training step and per epoch.")
    merge_and_export: bool = key(
        False, "Merge the adapters and write the trained model as a plain T5, with tokenizer, to output_dir/merged."
    )
