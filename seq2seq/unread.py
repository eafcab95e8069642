"""Finds the keys that a user set and that nothing reads."""

from adapters import AdapterConfig
from common.keys import key_fields
from seq2seq.models import configuration_of, model_config_errors
from seq2seq.settings import Settings
from third_party.models.t5.key_usage import read_keys


def unread_keys(settings: Settings) -> list[str]:
    """Return the adapter keys that were set to another value than the default, but that the chosen methods do not read.

    Raises ConfigError if the model or its adapters cannot be built.
    """
    with model_config_errors():
        config = configuration_of(settings.model)
    read, default = read_keys(config, settings.adapter), AdapterConfig()
    own = [f.name for f in key_fields(AdapterConfig) if f.name in settings.given]
    return [name for name in own if name not in read and getattr(settings.adapter, name) != getattr(default, name)]
