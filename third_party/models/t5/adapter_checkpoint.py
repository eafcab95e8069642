"""Small checkpoints: the tensors that cannot be rebuilt from the backbone, and what they belong to.

`adapter_model.safetensors` holds every parameter that is trained and every tensor of the adapters, trained or frozen;
`adapter_config.json` the method, the base model and the versions of the libraries.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from adapters import AdapterConfig, AdapterController, ConfigError

WEIGHTS = "adapter_model.safetensors"
DESCRIPTION = "adapter_config.json"


@dataclass
class Description:
    """What `adapter_config.json` says: the configuration, the backbone's name if it has one, the tensors beside it."""

    adapter_config: AdapterConfig
    base_model: str | None
    tensors: dict[str, list[int]]


def holds_adapter(directory) -> bool:
    """Whether `directory` is one that `save` wrote."""
    return (Path(directory) / WEIGHTS).is_file() and (Path(directory) / DESCRIPTION).is_file()


def adapter_tensors(model) -> dict[str, torch.Tensor]:
    """Name -> tensor of all that the backbone's own file does not give back; tied parameters appear once."""
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for path, module in model.named_modules():
        if isinstance(module, AdapterController):
            names.update(f"{path}.{name}" for name in module.state_dict())
    state = model.state_dict(keep_vars=True)
    return {name: state[name] for name in sorted(names)}


def save(model, directory: Path):
    """Write both files, each under another name first, so that a reader never meets half of one."""
    if model.adapter_config is None:
        raise ConfigError("the model has no adapters; save it whole with save_pretrained")
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adapter_tensors(model).items()}
    unfinished = directory / f".{WEIGHTS}"
    save_file(tensors, unfinished, metadata={"format": "pt"})
    os.replace(unfinished, directory / WEIGHTS)
    description = {
        "method": model.adapter_config.method,
        "base_model": model.name_or_path or None,
        "tasks": list(model.adapter_config.tasks),
        "adapter_config": model.adapter_config.to_dict(),
        "tensors": {name: list(tensor.shape) for name, tensor in tensors.items()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    unfinished = directory / f".{DESCRIPTION}"
    unfinished.write_text(json.dumps(description, indent=2) + "\n")
    os.replace(unfinished, directory / DESCRIPTION)


def read_description(directory: Path) -> Description:
    """Read `adapter_config.json`. Raises ConfigError if it is not one of ours."""
    try:
        content = json.loads((directory / DESCRIPTION).read_text())
        config = AdapterConfig(tasks=tuple(content["tasks"]), **content["adapter_config"])
        return Description(config, content["base_model"], content["tensors"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{directory / DESCRIPTION} is no adapter description of this project: {error!r}") from None


def load(model, directory: Path):
    """Copy the saved tensors into `model`, whose adapters are attached. ConfigError lists what does not fit."""
    description = read_description(directory)
    try:
        saved = load_file(directory / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{directory / WEIGHTS} cannot be read: {error}") from None
    state = model.state_dict(keep_vars=True)
    required = description.tensors.keys() | {name for name in state if "adapter_controller" in name}
    missing, unexpected = sorted(required - saved.keys()), sorted(saved.keys() - state.keys())
    if missing or unexpected:
        raise ConfigError(f"{directory / WEIGHTS} does not fit the model: missing {missing}, unexpected {unexpected}")
    wrong = [f"{n} {tuple(t.shape)} for {tuple(state[n].shape)}" for n, t in saved.items() if t.shape != state[n].shape]
    if wrong:
        raise ConfigError(f"{directory / WEIGHTS} does not fit the model: shapes {', '.join(wrong)}")
    here = model.adapter_config and model.adapter_config.to_dict()
    if here != description.adapter_config.to_dict():
        raise ConfigError(f"{directory} holds adapters of another configuration than the model's")
    with torch.no_grad():
        for name, tensor in saved.items():
            state[name].copy_(tensor)
