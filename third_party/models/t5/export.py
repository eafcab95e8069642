"""Export of an adapted model as a plain T5, which transformers loads without this project."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from adapters import METHODS, MergedWeight
from adapters.norms import NormPart
from adapters.precision import trained_dtype
from common.errors import ConfigError, warn_once
from third_party.models.t5.adapter_description import DESCRIPTION, PEFT_CONFIG
from third_party.models.t5.configuration_t5 import resolve_name

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

STAGING = ".unfinished"
KEPT = (DESCRIPTION, PEFT_CONFIG, "results.json")  # an adapter or a run, which an export does not replace


def merge_and_export(model: "T5ForConditionalGeneration", directory: Path) -> None:
    """Write a plain T5 with everything that was trained folded into its weights.

    It is in the dtype of the backbone if that holds all numbers exactly, and otherwise wholly in float32, so that
    nothing that was trained is lost.
    Raises ConfigError if that is impossible, with the reason, or if `directory` contains a backbone, an adapter or a
    run.
    """
    check_foldable(model)
    if os.path.realpath(directory) == os.path.realpath(resolve_name(model.name_or_path or ".")):
        raise ConfigError(f"{str(directory)!r} contains the backbone; export the merged model to another directory")
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{str(directory)!r} is a file; export the merged model to a directory")
    if directory.exists() and any(path.name in KEPT for path in directory.iterdir()):
        raise ConfigError(
            f"{str(directory)!r} contains an adapter or a run; export the merged model to another directory"
        )
    config = transformers.T5Config(**model.config.to_dict())
    with torch.device("meta"):
        plain = transformers.T5ForConditionalGeneration(config)
    plain.load_state_dict(_exported_tensors(model, plain.state_dict(), directory), assign=True)
    plain.all_tied_weights_keys = dict(model.all_tied_weights_keys)  # an output layer of its own stays one
    plain.tie_weights(recompute_mapping=False)
    plain.generation_config = model.generation_config
    staging = directory / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    plain.save_pretrained(staging)
    # config.json last: without it, the directory does not pass for a model.
    for path in sorted(staging.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, directory / path.name)
    staging.rmdir()


def _exported_tensors(
    model: "T5ForConditionalGeneration", names: Iterable[str], directory: Path
) -> dict[str, torch.Tensor]:
    tensors = {name: folded_tensor(model, name) for name in names}
    narrow = {name: backbone_dtype(model, name) for name in tensors}
    lossy = [name for name, t in tensors.items() if not torch.equal(t.to(narrow[name]).to(t.dtype), t)]
    if not lossy:
        return {name: tensor.to(narrow[name]) for name, tensor in tensors.items()}
    dtype = str(narrow[lossy[0]]).removeprefix("torch.")
    warn_once(
        f"the merged model in {str(directory)!r} is float32: rounding {len(lossy)} of its tensors to the backbone's "
        f"{dtype} would lose part of what was trained; whoever wants that loads it with dtype={dtype}"
    )
    return {name: tensor.to(trained_dtype(tensor.dtype)) for name, tensor in tensors.items()}


def check_foldable(model: "T5ForConditionalGeneration") -> None:
    """Raise ConfigError unless everything that was attached to `model` can be folded into plain weights."""
    methods = model.adapter_config.methods.values() if model.adapter_config else ()
    for name in methods:
        if not METHODS[name].foldable:
            raise ConfigError(
                f"{name} ({METHODS[name].formula}) cannot be folded into the weights of a plain T5; save it with "
                "save_adapter instead"
            )
    for path, module in model.named_modules():
        if isinstance(module, MergedWeight) and module.branch is not None and module.unmergeable:
            raise ConfigError(f"the branch of {path} cannot be folded into its weight: {module.unmergeable}")


@torch.no_grad()
def folded_tensor(model: "T5ForConditionalGeneration", name: str) -> torch.Tensor:
    """The tensor called `name` in the state dict of the plain T5; in float32 or wider where it may have changed."""
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    if isinstance(module, NormPart):
        return module.full().detach().contiguous()
    if isinstance(module, MergedWeight) and module.branch is not None:
        return module.exact_weight().to(trained_dtype(module.weight.dtype))
    return getattr(module, last).detach()


def backbone_dtype(model: "T5ForConditionalGeneration", name: str) -> torch.dtype:
    """The dtype that the tensor called `name` has in the backbone before anything is trained."""
    path, _, last = name.rpartition(".")
    module = model.get_submodule(path)
    return module.compute_dtype if hasattr(module, "compute_dtype") else getattr(module, last).dtype
