"""Experiment files in the form of the users of Compacter's tensor-train fork."""

import json
from pathlib import Path

from seq2seq.settings import Settings, load_settings

# A file as users of the fork write it.
FORK = {
    "do_train": True, "do_eval": True, "do_test": True, "save_steps": 1000, "model_name_or_path": "t5-base",
    "tokenizer_name": "t5-base", "save_total_limit": 1, "load_best_model_at_end": True,
    "metric_for_best_model": "average_metrics", "greater_is_better": True, "evaluation_strategy": "epoch",
    "split_validation_test": True, "dataset_config_name": ["en"], "eval_dataset_config_name": ["en"],
    "test_dataset_config_name": ["en"], "predict_with_generate": True, "adapter_config_name": "adapter",
    "train_task_adapters": True, "logging_dir": "outputs/old/trainer_logs", "output_dir": "outputs/old",
    "compute_time": True, "print_num_parameters": True, "add_layer_norm_before_adapter": False,
    "add_layer_norm_after_adapter": False, "unfreeze_lm_head": False, "unfreeze_layer_norms": True,
    "overwrite_output_dir": True, "project_name": "old", "experiment_name": "one", "task_name": "mrpc",
    "eval_dataset_name": "mrpc", "test_dataset_name": "mrpc", "num_train_epochs": 20, "learning_rate": 3e-4,
    "warmup_steps": 500, "per_device_train_batch_size": 100, "per_device_eval_batch_size": 50,
    "max_source_length": 128, "non_linearity": "gelu_new", "task_reduction_factor": 32, "task_expansion_factor": 0,
    "tensor_train_adapters": True, "tt_rank": 2, "tt_d": 3,
}  # fmt: skip


def fork_file(directory: Path, name: str = "fork", **keys) -> str:
    """Write a file with other values of some keys, and return its path; the value `...` leaves a key out."""
    values = {key: value for key, value in {**FORK, **keys}.items() if value is not ...}
    path = directory / f"{name}.json"
    path.write_text(json.dumps(values))
    return str(path)


def loaded(path: str, *overrides: str) -> tuple[Settings, list[str]]:
    """The settings of a file, and the notes as lines."""
    settings, notes = load_settings(path, list(overrides))
    return settings, notes.lines()
