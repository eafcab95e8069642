"""Reading adapters in peft's format, without peft."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import METHODS as OURS
from adapters import AdapterConfig
from adapters.sites import LINEARS
from common.errors import ConfigError, one_line, type_and_line
from common.json_settings import read_file
from third_party.models.t5.adapter_description import PEFT_CONFIG, WEIGHTS, Description, read_fingerprint
from third_party.models.t5.attach import TARGET_ALIASES
from third_party.models.t5.configuration_t5 import T5Config
from third_party.models.t5.loading import first
from third_party.models.t5.peft_format.exporting import counterpart
from third_party.models.t5.peft_format.method import PREFIX, Content, PeftMethod, Tensors, whole
from third_party.models.t5.peft_format.methods import checked_method
from third_party.models.t5.peft_format.names import FINGERPRINT, LINEAR, NORM, PROMPT


def read(directory: Path, backbone: T5Config | None = None) -> tuple[Description, Tensors]:
    """Return what an adapter of peft means here, and its tensors by our names.

    backbone: the backbone's configuration, to compare the adapted layers with its own; None: only what the files say.
    Raises ConfigError, naming the key, for what our methods cannot do exactly, and for damaged files.
    """
    content, path = read_file(directory / PEFT_CONFIG), directory / WEIGHTS
    saved, metadata = _read_tensors(path)
    try:
        method = checked_method(content)
        tensors = _our_tensors(saved, method, content)
        norms = [name for name in tensors if NORM.fullmatch(name)]
        keys = method.keys_in(content, tensors) | {"unfreeze_layer_norms": bool(norms)}
        if method.parts:
            keys |= _selection(method.paths(tensors), method, backbone)
        if backbone is not None and norms and len(norms) != len(_paths_of(backbone, T5LayerNorm)):
            raise ConfigError(f"modules_to_save: {len(norms)} layer norms are in the file; allowed: all or none")
        config = AdapterConfig(**keys)
        fingerprint = read_fingerprint(json.loads(metadata[FINGERPRINT])) if FINGERPRINT in metadata else None
    except ConfigError as error:
        raise ConfigError(f"{directory / PEFT_CONFIG}: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"{directory} is not a whole adapter of peft: {type_and_line(error)}") from None
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    return Description(config, content.get("base_model_name_or_path"), None, fingerprint, shapes), tensors


def _read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    if not path.exists() and path.with_suffix(".bin").exists():
        raise ConfigError(
            f"{path.with_suffix('.bin')} is a pickle, which is never read; save it as safetensors with peft"
        )
    try:
        with safe_open(path, "pt") as file:
            tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise ConfigError(f"{path} cannot be read: {one_line(error)}") from None
    wild = [name for name, t in tensors.items() if not (t.is_floating_point() and t.isfinite().all())]
    if wild or not tensors:
        raise ConfigError(f"{path} is damaged: values that are not finite numbers in {first(wild) or 'no tensor'}")
    return tensors, metadata


def _our_tensors(saved: Tensors, method: PeftMethod, content: Content) -> Tensors:
    if not method.parts:
        rows = whole(content, "num_virtual_tokens")
        prompt = saved.get("prompt_embeddings")
        if len(saved) != 1 or prompt is None or prompt.dim() != 2 or len(prompt) not in (rows, 2 * rows):
            shown = {name: list(tensor.shape) for name, tensor in saved.items()}
            raise ConfigError(f"num_virtual_tokens is {rows}, but the file has {str(shown)[:200]}")
        return {PROMPT: prompt[:rows].clone()}  # peft keeps a second half for the decoder, and does not use it
    return {_our_name(name, method): method.reshaped(name, tensor, False) for name, tensor in saved.items()}


def _our_name(name: str, method: PeftMethod) -> str:
    plain = name.removeprefix(PREFIX)
    split = method.ours(plain)
    if split and LINEAR.fullmatch(split[0]):
        return ".".join(split)
    if plain == name or not NORM.fullmatch(plain):
        raise ConfigError(
            f"target_modules or modules_to_save: the file has {name}; allowed: the linear layers "
            f"{', '.join(LINEARS)} of the blocks, and layer norms"
        )
    return plain


def _selection(paths: set[str], method: PeftMethod, backbone: T5Config | None) -> Content:
    """The keys that choose the layers at `paths`. Raises ConfigError if no keys choose exactly these."""
    matches = [LINEAR.fullmatch(path).groups() for path in paths]
    names = {TARGET_ALIASES.get(name, name) for _, _, name in matches}
    blocks = {stack: sorted({int(block) for s, block, _ in matches if s == stack}) for stack in ("encoder", "decoder")}
    if backbone is not None:
        _check_selection(paths, names, blocks, backbone)
        depths = {"encoder": backbone.num_layers, "decoder": backbone.num_decoder_layers}
        blocks = {stack: None if len(found) == depths[stack] else found for stack, found in blocks.items()}
    fixed = OURS[method.method].cls.targets
    if fixed is not None and names != set(fixed):
        raise ConfigError(f"target_modules is {', '.join(sorted(names))}; {method.method} has {', '.join(fixed)}")
    own = None if fixed is not None or names == {"wi", "wo"} else [name for name in LINEARS if name in names]
    in_decoder = blocks["decoder"] is None or bool(blocks["decoder"])
    return {
        "lora_targets": own,
        "task_adapter_layers_encoder": blocks["encoder"],
        "task_adapter_layers_decoder": blocks["decoder"] if in_decoder else None,
        "task_adapter_in_decoder": in_decoder,
    }


def _check_selection(paths: set[str], names: set[str], blocks: dict[str, list[int]], backbone: T5Config) -> None:
    """Raise ConfigError unless `paths` are all layers with one of the names in one of the blocks of each stack."""
    linears = {path for path in _paths_of(backbone, torch.nn.Linear) if LINEAR.fullmatch(path)}
    chosen = {
        path
        for path in linears
        for stack, block, name in [LINEAR.fullmatch(path).groups()]
        if int(block) in blocks[stack] and TARGET_ALIASES.get(name, name) in names
    }
    if paths == chosen:
        return
    what = (
        f"{first(paths - linears)} is not in this backbone"
        if paths - linears
        else f"{first(chosen - paths)} is left out, though other blocks or layers of that name are adapted"
    )
    raise ConfigError(f"target_modules: {what}; allowed: the same layers in each adapted block of a stack")


def _paths_of(backbone: T5Config, cls: type[torch.nn.Module]) -> list[str]:
    """The paths of all modules of a class in a T5."""
    with torch.device("meta"):
        plain = transformers.T5ForConditionalGeneration(backbone)
    return [path for path, module in plain.named_modules() if isinstance(module, cls)]


def check_same(present: AdapterConfig | None, saved: AdapterConfig, directory: Path) -> None:
    """Raise ConfigError unless a model's adapters compute what those of peft do, once they have their tensors."""
    kind, method = counterpart(saved)
    methods = present.methods if present else {}
    if methods != saved.methods:
        raise ConfigError(
            f"{directory} contains {kind} of peft, {saved.method} here; the model has {present and present.method}"
        )
    pairs: Iterable = ((k, method.keys_out(saved)[k], method.keys_out(present)[k]) for k in method.keys_out(saved))
    pairs = [*pairs, ("unfreeze_layer_norms", saved.unfreeze_layer_norms, present.unfreeze_layer_norms)]
    wrong = [f"{k} is {a!r}, in the model {b!r}" for k, a, b in pairs if k != "lora_dropout" and not _equal(a, b)]
    if wrong:
        raise ConfigError(
            f"{directory} contains adapters of another configuration than the model's: {'; '.join(wrong)}"
        )


def _equal(a: object, b: object) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    return math.isclose(a, b, rel_tol=1e-12) if numbers else a == b
