"""Writing adapters in peft's format, without peft."""

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import AdapterConfig
from adapters.parts import module_name
from common.errors import ConfigError
from common.files import replacing
from third_party.models.t5.adapter_description import DESCRIPTION, PEFT_CONFIG, WEIGHTS, holds_adapter, holds_peft
from third_party.models.t5.configuration_t5 import resolve_name
from third_party.models.t5.fingerprint import Fingerprint
from third_party.models.t5.loading import first
from third_party.models.t5.model_card import CARD, is_ours, peft_card
from third_party.models.t5.peft_format.method import PREFIX, Content, PeftMethod, Tensors
from third_party.models.t5.peft_format.methods import METHODS
from third_party.models.t5.peft_format.names import FINGERPRINT, NORM, PROMPT, TESTED

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

NO_COUNTERPART = {
    "attention_prefix_tuning": "whose prefixes stand in the decoder's self-attention alone, where they shift positions",
}


def export(
    model: "T5ForConditionalGeneration",
    directory: Path,
    task: str | None,
    tensors: Tensors,
    fingerprint: Fingerprint,
    weights: str,
) -> None:
    """Write the adapters of `model` as peft would, each file under a temporary name first.

    task: whose branches, where each task has its own.
    tensors: our names of all that is trained or added -> values.
    fingerprint: that of the backbone.
    weights: SHA-256 of the tensors in our format, by which scores are known to belong to them.
    Raises ConfigError if peft cannot say the same, if the backbone has no name, or if `directory` has an adapter of
    ours.
    """
    kind, method = counterpart(model.adapter_config)
    if not model.name_or_path:
        raise ConfigError(
            "the backbone has no name for base_model_name_or_path; save it with save_pretrained and load it from there"
        )
    if holds_adapter(directory) and not holds_peft(directory):
        raise ConfigError(
            f"{directory} contains an adapter of this project ({DESCRIPTION}); export to another directory"
        )
    tensors = _of_task(model.adapter_config, task, tensors)
    norms = _norms(model, tensors, method)
    content = _content(model, kind, method, tensors, bool(norms))
    written = {_peft_name(name, method): tensor for name, tensor in (tensors | norms).items()}
    written = {name: method.reshaped(name, tensor, True).contiguous() for name, tensor in written.items()}
    metadata = {"format": "pt", FINGERPRINT: json.dumps(asdict(fingerprint))}
    files = {
        PEFT_CONFIG: (json.dumps(content, indent=2, sort_keys=True) + "\n").encode(),
        WEIGHTS: safetensors.torch.save(written, metadata=metadata),
    }
    if is_ours(directory / CARD):
        files[CARD] = peft_card(model, content, method.package, weights).encode()
    with ExitStack() as renamed_last_to_first:
        for name, data in files.items():
            renamed_last_to_first.enter_context(replacing(directory / name)).write_bytes(data)


def counterpart(config: AdapterConfig | None) -> tuple[str, PeftMethod]:
    """peft's name of the method that `config` chooses, and what it is here. Raises ConfigError if peft has none."""
    if config is None:
        raise ConfigError("the model has no adapters; save the whole model with save_pretrained")
    kinds = {method.method: kind for kind, method in METHODS.items()}
    names = list(config.methods.values())
    if len(names) != 1 or names[0] not in kinds:
        why = f" ({NO_COUNTERPART[names[0]]})" if len(names) == 1 and names[0] in NO_COUNTERPART else ""
        raise ConfigError(
            f"{config.method or 'a model without a method'} has no equal in peft{why}; save it with save_adapter; can "
            f"be exported: {', '.join(kinds)}, one at a time"
        )
    return kinds[names[0]], METHODS[kinds[names[0]]]


def _of_task(config: AdapterConfig, task: str | None, tensors: Tensors) -> Tensors:
    """The tensors of one task, under the names that they have in a model of this task alone."""
    several = len(config.tasks) > 1 and config.per_task
    if several and task not in config.tasks or task not in (None, *config.tasks):
        given = "needs a task" if task is None else f"got the task {task!r}"
        raise ConfigError(f"export_peft {given}, as the model has branches for: {', '.join(config.tasks)}")
    if not several:
        return tensors
    own, others = (f".branch.branches.{module_name(task)}.", ".branch.branches.")
    return {
        name.replace(own, ".branch."): tensor for name, tensor in tensors.items() if own in name or others not in name
    }


def _content(
    model: "T5ForConditionalGeneration", kind: str, method: PeftMethod, tensors: Tensors, norms: bool
) -> Content:
    """What stands in `adapter_config.json`."""
    content = {
        "peft_type": kind,
        "task_type": "SEQ_2_SEQ_LM",
        "base_model_name_or_path": resolve_name(model.name_or_path),
        "inference_mode": True,
        "peft_version": TESTED,
        **method.keys_out(model.adapter_config),
    }
    if method.parts:
        paths, linears = method.paths(tensors), _linears(model)
        targets = _target_modules(paths, linears)
        sizes = {path: (linears[path].in_features, linears[path].out_features) for path in paths}
        content |= method.layer_keys(model.adapter_config, tensors, sizes, targets)
        content |= {"target_modules": targets, "modules_to_save": ["layer_norm", "final_layer_norm"] if norms else None}
    return content


def _linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {path: module for path, module in model.named_modules() if isinstance(module, nn.Linear)}


def _target_modules(paths: set[str], linears: dict[str, nn.Linear]) -> list[str]:
    """The last names of the adapted layers if these choose no others, else their whole paths."""
    names = {path.rpartition(".")[2] for path in paths}
    chosen = {path for path in linears if path.rpartition(".")[2] in names}
    return sorted(names if chosen == paths else paths)


def _norms(model: "T5ForConditionalGeneration", tensors: Tensors, method: PeftMethod) -> Tensors:
    """All layer norms if some are trained, as peft carries them whole. Raises ConfigError for other trained tensors."""
    beside = [name for name in tensors if name != PROMPT and not method.theirs(name)]
    others = [name for name in beside if not NORM.fullmatch(name)]
    if others:
        key = "unfreeze_lm_head is true" if model.adapter_config.unfreeze_lm_head else "more is trained than adapters"
        raise ConfigError(f"{key}, and peft would not carry {first(others)} exactly; save it with save_adapter")
    if beside and not method.norms:
        raise ConfigError(
            f"unfreeze_layer_norms is true, and peft carries no layer norms beside {method.method}; save it with "
            "save_adapter"
        )
    found = [(path, module) for path, module in model.named_modules() if isinstance(module, T5LayerNorm)]
    return {f"{path}.weight": module.weight.detach().cpu() for path, module in found} if beside else {}


def _peft_name(name: str, method: PeftMethod) -> str:
    if name == PROMPT:
        return "prompt_embeddings"
    split = method.theirs(name)
    return PREFIX + (".".join(split) if split else name)
