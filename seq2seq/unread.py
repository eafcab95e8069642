"""Finds the keys that a user set and that nothing reads."""

from collections.abc import Iterable
from dataclasses import MISSING, fields

from common.keys import key_fields
from seq2seq.data.batches import tasks_of_splits
from seq2seq.models import configuration_of, model_config_errors
from seq2seq.settings import Settings
from seq2seq.training_arguments import TrainingArguments
from third_party.models.t5.key_usage import read_keys

# Keys of transformers that this program sets or does in another way.
OTHERWISE = (
    *("do_predict", "sortish_sampler", "remove_unused_columns", "prediction_loss_only", "length_column_name"),
    "include_for_metrics",
)
OF_SEVERAL_PROCESSES = (
    *("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "ddp_backend"),
    *("ddp_timeout", "local_rank", "average_tokens_across_devices", "log_level_replica", "log_on_each_node"),
    *("save_on_each_node", "eval_use_gather_object"),
)
OF_THE_HUB = ("hub_token", "hub_model_id", "hub_strategy", "hub_private_repo", "hub_always_push", "hub_revision")
OF_TRACKERS = ("run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id")
PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop")


def unread_keys(settings: Settings) -> dict[str, list[str]]:
    """Return who does not read which of the keys that were set to another value than the default.

    Raises ConfigError if a task is unknown, or the model or its adapters cannot be built.
    """
    unread = {reader: changed(settings, names) for reader, names in names_unread(settings).items()}
    return {reader: names for reader, names in unread.items() if names}


def names_unread(settings: Settings) -> dict[str, Iterable[str]]:
    """Return who does not read which keys, whatever their values. Raises ConfigError as `unread_keys` does."""
    tasks_of_splits(settings.data, settings.training.split_seed)  # first, as each name would get adapters
    with model_config_errors():
        config = configuration_of(settings.model)
    adapter = {f.name for f in key_fields(type(settings.adapter))}
    unread: dict[str, Iterable[str]] = {settings.method: adapter - read_keys(config, settings.adapter)}
    if settings.model.model_name_or_path is not None:
        unread["a pretrained model"] = ["model_config", "initial_embedding", "tokenizer_vocab_size"]
    elif settings.model.tokenizer_name is not None:
        unread["a pretrained tokenizer"] = ["tokenizer_vocab_size"]
    taught = any(name.endswith("distillation") for name in settings.data.all_tasks)
    if settings.model.model_name_or_path is None and not taught:
        unread["tasks without a teacher"] = ["initial_embedding"]
    if len(settings.data.tasks_of("train")) == 1:
        unread["a single task"] = ["mixing", "mixing_temperature", "mixed_batches"]
    if "file" not in settings.data.all_tasks:
        unread['tasks other than "file"'] = ["target_column", "on_bad_rows"]
    if not taught and "span-corruption" not in settings.data.all_tasks:
        unread["tasks other than span-corruption and distillation"] = ["text_sources"]
    if "span-corruption+distillation" not in settings.data.all_tasks:
        unread["tasks other than span-corruption+distillation"] = ["decoder_targets"]
    return unread | unread_by_training(settings.training)


def unread_by_training(training: TrainingArguments) -> dict[str, tuple[str, ...]]:
    """Return the training keys that have no effect with the others as they are, by who does not read them."""
    unread = {"this program": OTHERWISE}
    if not training.do_train:
        unread["a run that does not train"] = ("class_weights", "early_stopping_patience", "split_by_length")
    if training.device.type == "cpu":
        unread["a CPU"] = ("fp16", "tf32", "torch_empty_cache_steps")
    if training.world_size == 1:
        unread["a single process"] = OF_SEVERAL_PROCESSES
    if not training.push_to_hub:
        unread["a run without push_to_hub"] = OF_THE_HUB
    if not training.fsdp:
        unread["a run without fsdp"] = ("fsdp_config",)
    if not training.report_to:
        unread["a run without report_to"] = OF_TRACKERS
    if not training.predict_with_generate:
        unread["a run without predict_with_generate"] = ("generation_num_beams", "generation_config")
    if not training.gradient_checkpointing:
        kwargs = ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
        unread["a run without gradient_checkpointing"] = kwargs
    if not training.dataloader_num_workers:
        unread["a run without dataloader_num_workers"] = ("dataloader_multiprocessing_context", "dataloader_in_order")
    unread["a run without use_liger_kernel"] = ("liger_kernel_config",)
    if training.optim in PLAIN_OPTIMIZERS:
        unread[f"optim {training.optim.value}"] = ("optim_args", "optim_target_modules")
    for kind in ("eval", "save", "logging"):
        strategy = getattr(training, f"{kind}_strategy").value
        if strategy != "steps":
            unread[f"{kind}_strategy {strategy}"] = (f"{kind}_steps",)
    return unread


def changed(settings: Settings, names: Iterable[str]) -> list[str]:
    """Return those of the keys that were set to another value than the default, in the order of the user."""
    names = set(names)
    given = [name for name in settings.given if name in names]
    parts = [(part, type(part)()) for part in (settings.adapter, settings.model, settings.data)]
    of_training = {
        f.name: f.default if f.default_factory is MISSING else f.default_factory() for f in fields(settings.training)
    }
    return [
        name
        for name in given
        if any(getattr(part, name, None) != getattr(default, name, None) for part, default in parts)
        or (name in of_training and settings.given[name] != of_training[name])
    ]
