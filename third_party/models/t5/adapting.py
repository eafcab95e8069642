"""The two steps that follow loading a backbone: attach adapters, then freeze."""

from contextlib import contextmanager

import torch

from adapters import AdapterConfig
from common.errors import ConfigError, one_line
from third_party.models.t5.freezing import freeze_model_params
from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration
from third_party.models.t5.parameters import count_parameters

MOST_ADDED = 10  # times the parameters of the backbone; more is a typing error


def modify_model_after_init(model: T5ForConditionalGeneration, adapter_config: AdapterConfig | None):
    """Attach adapters to a loaded backbone, then freeze: the two steps that follow loading. Returns the model.

    A model that was loaded with adapters keeps them; ConfigError if `adapter_config` asks for others.
    """
    if adapter_config is not None and model.adapter_config is None:
        with too_large_named(adapter_config):
            model.attach_adapters(adapter_config)
    elif adapter_config is not None:
        here, asked = model.adapter_config.what_is_trained(), adapter_config.what_is_trained()
        wrong = [f"{name} is {asked[name]!r}, there {here[name]!r}" for name in here if here[name] != asked[name]]
        if wrong:
            raise ConfigError(f"model_name_or_path names a run with other adapters: {'; '.join(wrong)}")
    freeze_model_params(model)
    return model


def check_size(backbone: T5ForConditionalGeneration, adapter_config: AdapterConfig) -> None:
    """Raise ConfigError for adapters of over MOST_ADDED times the backbone's parameters, before memory is taken."""
    with torch.random.fork_rng(), torch.device("meta"):
        model = T5ForConditionalGeneration(backbone.config, adapter_config)
    added = count_parameters(model)["total"] - backbone.backbone_size
    if added > MOST_ADDED * backbone.backbone_size:
        raise ConfigError(
            f"{adapter_config.method} with these sizes adds {added:,} parameters to the backbone's "
            f"{backbone.backbone_size:,}; allowed: {MOST_ADDED} times as many"
        )


@contextmanager
def too_large_named(adapter_config: AdapterConfig):
    """A failure to allocate becomes one line."""
    try:
        yield
    except RuntimeError as error:
        if "alloc" in str(error).lower() or "memory" in str(error).lower():
            raise ConfigError(
                f"{adapter_config.method} with these sizes does not fit into memory ({one_line(error)})"
            ) from None
        raise
