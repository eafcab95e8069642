"""Does a saved adapter belong to a model: names, shapes, dtypes and configuration, before anything is copied."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from adapters import AdapterConfig
from common.errors import ConfigError, one_line
from third_party.models.t5 import peft_format
from third_party.models.t5.adapter_description import WEIGHTS, Description, description_path, holds_peft
from third_party.models.t5.loading import first
from third_party.models.t5.saved_tensors import FLOATS, added_tensors, loadable_names

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


def check_names(model: "T5ForConditionalGeneration", description: Description, directory: Path) -> None:
    """Raise ConfigError unless a file has all tensors that the model's adapters have, and no others than it trains."""
    missing = sorted(added_tensors(model).keys() - description.tensors)
    unexpected = sorted(description.tensors.keys() - loadable_names(model))
    if missing or unexpected:
        raise ConfigError(
            f"{directory / WEIGHTS} does not match the model: missing {missing}, unexpected {unexpected}, which the "
            "model does not have or its configuration does not train"
        )


def check_tensors(saved: dict[str, torch.Tensor], state: dict[str, torch.Tensor], directory: Path) -> None:
    """Raise ConfigError, listing them, for tensors of another shape or kind than the model's, or out of its range."""
    pairs = [(name, tensor, state[name]) for name, tensor in saved.items()]
    problems = {
        "shape mismatch": [
            f"{name} is {tuple(given.shape)}, in the model {tuple(there.shape)}"
            for name, given, there in pairs
            if given.shape != there.shape
        ],
        "dtype mismatch": [
            f"{name} is {given.dtype}, in the model {there.dtype}"
            for name, given, there in pairs
            if given.dtype != there.dtype and not {given.dtype, there.dtype} <= FLOATS
        ],
        "out of range": [name for name, given, there in pairs if not given.to(there.dtype).isfinite().all()],
    }
    for problem, found in problems.items():
        if found:
            raise ConfigError(f"{directory / WEIGHTS} does not match the model: {problem}: {', '.join(found)}")


def check_configuration(model: "T5ForConditionalGeneration", description: Description, directory: Path) -> None:
    """Raise ConfigError unless the model's adapters compute what the saved ones do, once they have their tensors."""
    if holds_peft(directory):
        peft_format.check_same(model.adapter_config, description.adapter_config, directory)
        return
    saved = description.adapter_config.structural_keys()
    current = model.adapter_config.structural_keys() if model.adapter_config else {}
    wrong = [
        f"{key} is {value!r}, in the model {current.get(key)!r}"
        for key, value in saved.items()
        if current.get(key) != value
    ]
    if wrong:
        raise ConfigError(
            f"{directory} contains adapters of another configuration than the model's: {'; '.join(wrong)}"
        )


def check_given(config: AdapterConfig, description: Description, directory: Path) -> None:
    """Raise ConfigError unless a configuration that was given means the adapters that were saved."""
    saved = description.adapter_config
    if holds_peft(directory):
        peft_format.check_same(config, saved, directory)
    elif (config.tasks, config.structural_keys()) != (saved.tasks, saved.structural_keys()):
        raise ConfigError(
            f"{directory} contains adapters of another configuration than adapter_config; leave adapter_config out"
        )


def check_plan(
    backbone: "T5ForConditionalGeneration", config: AdapterConfig, description: Description, directory: Path
) -> None:
    """Raise ConfigError, before allocating memory, if `config` adds other tensors to `backbone` than were saved."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            planned = added_tensors(type(backbone)(backbone.config, config))
    except (RuntimeError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        raise ConfigError(f"{description_path(directory)}: such adapters cannot be built: {one_line(error)}") from None
    wrong = [
        f"{name} is {description.tensors.get(name, 'missing')}, not {list(tensor.shape)}"
        for name, tensor in planned.items()
        if description.tensors.get(name) != list(tensor.shape)
    ]
    if wrong:
        raise ConfigError(f"{directory} does not match its configuration and this backbone: {first(wrong)}")
