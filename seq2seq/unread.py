"""Finds the keys that a user set and that nothing reads."""

from collections.abc import Iterable

from common.keys import key_fields
from seq2seq.models import configuration_of, model_config_errors
from seq2seq.settings import Settings
from third_party.models.t5.key_usage import read_keys


def unread_keys(settings: Settings) -> dict[str, list[str]]:
    """Return who does not read which of the keys that were set to another value than the default.

    Raises ConfigError if the model or its adapters cannot be built.
    """
    with model_config_errors():
        config = configuration_of(settings.model)
    adapter = {f.name for f in key_fields(type(settings.adapter))}
    unread = {settings.method: changed(settings, adapter - read_keys(config, settings.adapter))}
    if settings.model.model_name_or_path is not None:
        keys = "model_config", "initial_embedding", "tokenizer_vocab_size"
        unread["a pretrained model"] = changed(settings, keys)
    elif settings.model.tokenizer_name is not None:
        unread["a pretrained tokenizer"] = changed(settings, ["tokenizer_vocab_size"])
    if len(settings.data.tasks_of("train")) == 1:
        unread["a single task"] = changed(settings, ("mixing", "mixing_temperature", "mixed_batches"))
    if "file" not in settings.data.all_tasks:
        unread['tasks other than "file"'] = changed(settings, ["target_column"])
    return {reader: names for reader, names in unread.items() if names}


def changed(settings: Settings, names: Iterable[str]) -> list[str]:
    """Return those of the keys that were set to another value than the default, in the order of the user."""
    names = set(names)
    given = [name for name in settings.given if name in names]
    parts = [(part, type(part)()) for part in (settings.adapter, settings.model, settings.data)]
    return [
        name
        for name in given
        if any(getattr(part, name, None) != getattr(default, name, None) for part, default in parts)
    ]
