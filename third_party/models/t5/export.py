"""An adapted model as a plain T5, which stock transformers loads."""

import os
import shutil
from pathlib import Path

import torch
import transformers

from adapters import METHODS, MergedWeight
from adapters.norms import NormPart
from common.errors import ConfigError
from third_party.models.t5.configuration_t5 import resolve_name

STAGING = ".unfinished"


def merge_and_export(model, directory: Path) -> None:
    """Write `model` with all that was trained folded into plain weights, in the precision of the weights.

    Raises ConfigError, naming the reason, where a plain T5 cannot hold it, or where `directory` holds something else.
    """
    check_foldable(model)
    if directory.resolve() == Path(resolve_name(model.name_or_path or ".")).resolve():
        raise ConfigError(f"{str(directory)!r} holds the backbone; export the merged model to another directory")
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{str(directory)!r} is a file; export the merged model to a directory")
    if directory.exists() and any(path.name in ("adapter_config.json", "results.json") for path in directory.iterdir()):
        raise ConfigError(f"{str(directory)!r} holds an adapter or a run; export the merged model to another directory")
    config = transformers.T5Config(**model.config.to_dict())
    with torch.device("meta"):
        plain = transformers.T5ForConditionalGeneration(config)
    plain.load_state_dict({name: folded(model, name) for name in plain.state_dict()}, assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    plain.save_pretrained(staging)
    for path in sorted(
        staging.iterdir(), key=lambda path: path.name == "config.json"
    ):  # what makes it a model comes last
        os.replace(path, directory / path.name)
    staging.rmdir()


def check_foldable(model) -> None:
    """Raise ConfigError unless all that was attached to `model` can become part of plain weights."""
    methods = model.adapter_config.methods.values() if model.adapter_config else ()
    for name in methods:
        if not METHODS[name].foldable:
            raise ConfigError(
                f"{name} ({METHODS[name].formula}) cannot be folded into the weights of a plain T5, "
                "which has no place for it; save it with save_adapter"
            )
    for path, module in model.named_modules():
        if isinstance(module, MergedWeight) and module.branch is not None and module.unmergeable:
            raise ConfigError(f"the branch of {path} cannot be folded into its weight: {module.unmergeable}")


@torch.no_grad()
def folded(model, name: str) -> torch.Tensor:
    """The tensor that a plain T5 has under `name`."""
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(module, NormPart):
        return module.full().detach().contiguous()
    if isinstance(module, MergedWeight) and module.branch is not None:
        return module.exact_weight().to(module.weight.dtype)
    return getattr(module, last).detach()
