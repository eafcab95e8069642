"""The keys that the chosen methods read, found by building a model without weights and watching its configuration."""

import json

import torch

from adapters import AdapterConfig
from adapters.sites import AFTER_SUBLAYER, BESIDE_LINEAR
from common.errors import ConfigError, type_and_line
from common.keys import key_fields
from third_party.models.t5.configuration_t5 import T5Config
from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


class RecordingConfig(AdapterConfig):
    """A copy of a configuration that records in `read` which of its keys are read."""

    read: set[str]

    def __getattribute__(self, name: str):
        if name in object.__getattribute__(self, "__dict__").get("watched", ()):
            object.__getattribute__(self, "read").add(name)
        return object.__getattribute__(self, name)

    @classmethod
    def of(cls, config: AdapterConfig) -> "RecordingConfig":
        """Copy `config`; what its own checks read does not count."""
        recording = cls(**config.to_dict(), tasks=config.tasks)
        recording.chosen, recording.read, recording.watched = config.methods, set(), set(config.to_dict())
        return recording

    @property
    def methods(self) -> dict[str, str]:
        # The base class reads all keys that select a method; these reads must not count.
        found = self.__dict__.get("chosen")
        return AdapterConfig.methods.fget(self) if found is None else found


def read_keys(config: T5Config, adapter_config: AdapterConfig) -> set[str]:
    """Return the keys of `adapter_config` that matter for a backbone of this configuration.

    These are the keys that select the chosen methods, and those read while they are attached and the rest is frozen.
    Raises ConfigError if they cannot be attached, or if there is no such backbone.
    """
    return adapted_and_read(config, adapter_config)[1]


def adapted_and_read(config: T5Config, adapter_config: AdapterConfig) -> tuple[T5ForConditionalGeneration, set[str]]:
    """Return an adapted model without values, which must not be changed, and the keys that `read_keys` returns.

    The last one is kept, as a large model takes seconds to build and is asked for several times in a row.
    """
    key = json.dumps([config.to_dict(), adapter_config.to_dict(), adapter_config.tasks], default=str)
    if key not in _last:
        built = _build(config, adapter_config)
        _last.clear()
        _last[key] = built
    return _last[key]


_last: dict[str, tuple[T5ForConditionalGeneration, set[str]]] = {}


def _build(config: T5Config, adapter_config: AdapterConfig) -> tuple[T5ForConditionalGeneration, set[str]]:
    recording = RecordingConfig.of(adapter_config)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        try:
            model = T5ForConditionalGeneration(config)
        except Exception as error:  # each wrong field raises an error of its own
            why = str(error) if isinstance(error, ConfigError) else type_and_line(error)
            raise ConfigError(
                f"no T5 can be built from model_config, or from the config.json of model_name_or_path: {why}"
            ) from None
        model.attach_adapters(recording)
    return model, recording.read | selecting_keys(adapter_config)


def selecting_keys(config: AdapterConfig) -> set[str]:
    """Return the keys that select the chosen methods: those of the methods, and of what they are variants of."""
    fields = {f.name: f.metadata for f in key_fields(AdapterConfig)}
    keys_of = {metadata.get("method", name): name for name, metadata in fields.items()}
    found = {"keep_serial_adapter"} if {AFTER_SUBLAYER, BESIDE_LINEAR} <= config.methods.keys() else set()
    for method in config.methods.values():
        key = keys_of[method]
        while key is not None:
            found.add(key)
            key = fields[key].get("form_of")
    return found
