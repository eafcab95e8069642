"""The keys that can change a run's scores: only runs that agree in all of them are repetitions of one configuration."""

from pathlib import PurePath

from adapters import AdapterConfig
from common.keys import key_fields
from seq2seq import layout
from seq2seq.settings import own_defaults

ADAPTER_KEYS = {f.name: f for f in key_fields(AdapterConfig)}
# Keys of which the trained model and its scores are independent, and those in which repetitions differ.
INCIDENTAL = {
    *layout.INCIDENTAL,
    *("seed", "seeds", "data_seed", "compute_time", "compute_memory", "merge_and_export", "merge_at_eval"),
    *("do_eval", "do_test", "test_dataset_name", "predict_with_generate", "dialect"),
    *("per_device_eval_batch_size", "eval_accumulation_steps", "eval_on_start", "eval_delay", "eval_do_concat_batches"),
    *("max_val_samples", "max_test_samples", "metrics", "data_name", "data_dir", "validation_file", "test_file"),
    *("report_to", "run_name", "project", "push_to_hub", "disable_tqdm", "skip_memory_metrics", "use_checkpointing"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile", "use_cpu", "local_rank"),
    *("include_num_input_tokens_seen", "torch_empty_cache_steps", "full_determinism", "split_by_length"),
}
INCIDENTAL_BEGINNINGS = ("logging_", "log_", "save_", "hub_", "dataloader_", "ddp_", "trackio_", "torch_compile_")
# These matter if the best of the evaluated models is kept.
OF_EVALUATION = ("eval_strategy", "eval_steps", "eval_dataset_name")


def relevant(config: dict, read: frozenset[str] | None) -> dict:
    """Return the keys that matter, with this program's defaults where they are not set.

    config: the resolved configuration of a run.
    read: the adapter keys that its method reads, the others count as not set; None: unknown.
    """
    defaults = own_defaults()
    unread = ADAPTER_KEYS.keys() - read if read is not None else set()
    given = {name: value for name, value in config.items() if name not in unread}
    complete = {**defaults, **given}
    kept = {name: plain(value) for name, value in complete.items() if matters(name, complete)}
    if isinstance(kept["train_file"], str):  # the same file may lie elsewhere
        kept["train_file"] = PurePath(kept["train_file"]).stem
    return kept


def matters(name: str, config: dict) -> bool:
    """True if the value of a key can change the scores of a run of this configuration."""
    if name in OF_EVALUATION:
        return bool(config.get("load_best_model_at_end")) or config.get("early_stopping_patience") is not None
    return name not in INCIDENTAL and not name.startswith(INCIDENTAL_BEGINNINGS)


def plain(value):
    """The value, as an integer if it is a number without a fraction, so that 3 equals 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
