"""The two steps after loading a backbone: attach adapters, then freeze."""

from dataclasses import replace

import torch

from adapters import AdapterConfig
from common.errors import ConfigError, one_line
from third_party.models.t5.freezing import freeze_model_params
from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration
from third_party.models.t5.parameters import count_parameters

MAX_ADDED_RATIO = 10  # added parameters / backbone parameters; more is assumed to be a typo


def modify_model_after_init(
    model: T5ForConditionalGeneration, adapter_config: AdapterConfig | None
) -> T5ForConditionalGeneration:
    """Attach adapters to a loaded backbone, freeze the rest, and return the model.

    A model that was loaded with adapters keeps them, and takes over the keys that do not affect what is stored.
    Raises ConfigError if `adapter_config` differs from their configuration, or if new ones do not fit in memory.
    """
    if adapter_config is not None and model.adapter_config is None:
        try:
            model.attach_adapters(adapter_config)
        except RuntimeError as error:
            if "alloc" in str(error).lower() or "memory" in str(error).lower():
                raise ConfigError(
                    f"{adapter_config.method} with these sizes does not fit in memory ({one_line(error)})"
                ) from None
            raise
    elif adapter_config is not None:
        loaded, wanted = model.adapter_config.structural_keys(), adapter_config.structural_keys()
        wrong = [f"{key} is {wanted[key]!r}, there {loaded[key]!r}" for key in loaded if loaded[key] != wanted[key]]
        if wrong:
            raise ConfigError(
                f"model_name_or_path names a run whose adapters have another configuration: {'; '.join(wrong)}"
            )
        change_incidental_keys(model, adapter_config)
    freeze_model_params(model)
    return model


def change_incidental_keys(model: T5ForConditionalGeneration, wanted: AdapterConfig) -> None:
    """Let the keys that affect no stored tensor have the values of `wanted`.

    wanted: a configuration whose other keys are those of the model's adapters.
    Two models without values, of the present and of the wanted configuration, show which attributes the keys set.
    """
    present = model.adapter_config
    changed = {key: value for key, value in wanted.to_dict().items() if getattr(present, key) != value}
    if not changed:
        return
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        pair = [T5ForConditionalGeneration(model.config, replace(present, **kept)) for kept in ({}, changed)]
    for module, before, after in zip(model.modules(), *(each.modules() for each in pair), strict=True):
        for name, value in vars(after).items():
            if isinstance(value, bool | int | float | torch.dtype | None) and value != vars(before)[name]:
                setattr(module, name, value)
    for key, value in changed.items():
        setattr(present, key, value)
    mode = model.training
    model.train().train(mode)  # undoes what is merged, and merges anew


def check_size(backbone: T5ForConditionalGeneration, adapter_config: AdapterConfig) -> None:
    """Raise ConfigError, before allocating memory, if adapters have over MAX_ADDED_RATIO times the backbone's size."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = T5ForConditionalGeneration(backbone.config, adapter_config)
    added = count_parameters(model)["total"] - backbone.backbone_size
    if added > MAX_ADDED_RATIO * backbone.backbone_size:
        raise ConfigError(
            f"{adapter_config.method} with these sizes adds {added:,} parameters to the backbone's "
            f"{backbone.backbone_size:,}; allowed: {MAX_ADDED_RATIO} times as many"
        )
