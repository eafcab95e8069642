"""Attaching methods to T5, one function per site. Modules of the backbone keep their names and state-dict keys."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import UnionType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from adapters import (
    METHODS,
    AdaptedLinear,
    AdapterConfig,
    AdapterController,
    Place,
    SharedParts,
    TaskBranches,
    TaskSwitch,
    build,
    sites,
)
from adapters.intrinsic import AdaptedEmbedding, AdaptedNorm, IntrinsicDelta
from adapters.norms import NormPart
from adapters.task_switch import WhileEnabled
from third_party.models.t5.prefix_attention import use_prefixed_attention

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration as Model

DEFAULT_TARGETS = ("wi", "wo")
TARGET_ALIASES = {"wi_0": "wi", "wi_1": "wi"}  # the two inner layers of the gated feed-forward


def attach(model: "Model", config: AdapterConfig, switch: TaskSwitch) -> None:
    """Attach the methods that `config` chooses, on the device of the modules that they adapt.

    They compute in the dtype of these modules; their tensors are float32 if that is half precision. While `switch` is
    off, the model computes as without them.
    """
    shared = SharedParts()
    for site, function in SITES.items():
        if site in config.methods:
            function(model, config, shared, switch)


def _after_sublayers(model: "Model", config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    for site in model.config.adapter_sites(config):
        layer = model.get_submodule(site.path)
        arguments = config, model.config.d_model, switch, shared
        controller = _build_like(layer.layer_norm.weight, AdapterController, *arguments)
        layer.add_module("adapter_controller", controller)
        hook = WhileEnabled(switch, controller.adapt_output)
        model.adapter_hooks.append(getattr(layer, site.sublayer).register_forward_hook(hook))


@dataclass(frozen=True)
class _Target:
    """A linear layer that gets a branch.

    path: its module path in the model.
    name: its name as in `Place`.
    block: index of its block among all blocks of the model.
    linear: the layer.
    """

    path: str
    name: str
    block: int
    linear: nn.Linear

    @property
    def sizes(self) -> list[int]:
        return sorted((self.linear.in_features, self.linear.out_features))


def _beside_linears(model: "Model", config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    chosen = METHODS[config.methods[sites.BESIDE_LINEAR]].cls.targets or config.lora_targets or DEFAULT_TARGETS
    targets = list(_targets(model, config, chosen))
    one_for_all = config.share_cores_among == "layers and tasks"
    for target in targets:
        alike = [other for other in targets if other.sizes == target.sizes]
        names, blocks = (
            list(dict.fromkeys(column)) for column in zip(*((t.name, t.block) for t in alike), strict=True)
        )
        place = Place(target.name, blocks.index(target.block), len(blocks), tuple(names))
        parts = shared if one_for_all else SharedParts()
        make = partial(_branch, config, target.linear, place, parts, switch)
        _adapted_linear(model, target.path, config, switch).branch = _build_like(target.linear.weight, make)


def _branch(
    config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts, switch: TaskSwitch
) -> nn.Module:
    """The branch of a linear layer; a branch for each task if there are several."""

    def build_for(task: str | None) -> Any:
        return build(config, sites.BESIDE_LINEAR, linear, replace(place, task=task), shared)

    return TaskBranches(switch, build_for) if len(switch.tasks) > 1 else build_for(None)


def _targets(model: "Model", config: AdapterConfig, chosen: Collection[str]) -> Iterator[_Target]:
    """Yield the linear layers named in `chosen` of the blocks that `config` adapts."""
    for stack, block, index in model.config.adapted_blocks(config):
        prefix = f"{stack}.block.{block}"
        for path, module in model.get_submodule(prefix).named_modules():
            name = path.rpartition(".")[2]
            if isinstance(module, nn.Linear) and TARGET_ALIASES.get(name, name) in chosen:
                name = f"EncDecAttention.{name}" if "EncDec" in path else name
                yield _Target(f"{prefix}.{path}", name, index, module)


def _instead_of_norms(model: "Model", config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    for path, norm in _modules(model, T5LayerNorm):
        _replace(model, path, _build_like(norm.weight, build, config, sites.INSTEAD_OF_NORM, norm, shared, switch))


def _on_biases(model: "Model", config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    for path, linear in _modules(model, nn.Linear):
        if path == "lm_head" and config.freeze_bitfit_lm_head_all:
            continue
        bias = _build_like(linear.weight, build, config, sites.ON_BIAS, linear.out_features, shared)
        _adapted_linear(model, path, config, switch).added_bias = bias
    for _, norm in _modules(model, T5LayerNorm | NormPart):
        bias = _build_like(next(norm.parameters()), build, config, sites.ON_BIAS, model.config.d_model, shared)
        norm.add_module("added_bias", bias)
        hook = WhileEnabled(switch, bias.add_to_output)
        model.adapter_hooks.append(norm.register_forward_hook(hook))


def _before_encoder(model: "Model", config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    prompt = _build_like(model.shared.weight, build, config, sites.BEFORE_ENCODER, model.shared)
    model.encoder.add_module("prompt", prompt)
    before_encoder = WhileEnabled(switch, prompt.before_encoder)
    model.adapter_hooks += [
        model.encoder.register_forward_pre_hook(before_encoder, with_kwargs=True),
        model.decoder.register_forward_pre_hook(prompt.before_decoder, with_kwargs=True),  # it looks at the states
    ]


def _in_attention(model: "Model", config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    sizes = model.config.num_heads, model.config.d_kv
    for _, attention in _modules(model, T5Attention):
        arguments = config, sites.IN_ATTENTION, *sizes, switch, attention.config._attn_implementation
        attention.add_module("prefix", _build_like(attention.k.weight, build, *arguments))
    use_prefixed_attention(model, switch)


def _on_weights(model: "Model", config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    tensors = list(model.parameters())  # tied ones appear once
    numbers = {tensor: number for number, tensor in enumerate(tensors)}
    sizes = [tensor.numel() for tensor in tensors]
    subspace = _build_like(tensors[0], build, config, sites.ON_WEIGHTS, sizes)
    adapted = {}
    kinds = (nn.Linear, AdaptedLinear), (nn.Embedding, AdaptedEmbedding), (T5LayerNorm, AdaptedNorm)
    places = [(cls, *place) for replaced, cls in kinds for place in _modules(model, replaced)]
    uses = Counter(module.weight for _, _, module in places)
    for cls, path, module in places:
        key = cls, module.weight  # encoder and decoder share one embedding
        if key not in adapted:
            adapted[key] = cls(module, config, switch)
            tied = uses[module.weight] > 1
            adapted[key].branch = IntrinsicDelta(subspace, numbers[module.weight], module.weight.shape, tied)
        _replace(model, path, adapted[key])
    for called in (model, model.encoder, model.decoder):
        model.adapter_hooks.append(called.register_forward_pre_hook(subspace.begin))
        model.adapter_hooks.append(called.register_forward_hook(subspace.end, always_call=True))


SITES: dict[str, Callable[["Model", AdapterConfig, SharedParts, TaskSwitch], None]] = {
    sites.AFTER_SUBLAYER: _after_sublayers,
    sites.INSTEAD_OF_NORM: _instead_of_norms,
    sites.BESIDE_LINEAR: _beside_linears,
    sites.ON_BIAS: _on_biases,  # after the sites that replace modules, as the new modules get the biases
    sites.BEFORE_ENCODER: _before_encoder,
    sites.IN_ATTENTION: _in_attention,
    sites.ON_WEIGHTS: _on_weights,
}


def _modules(model: nn.Module, cls: type[nn.Module] | UnionType) -> list[tuple[str, Any]]:
    """Return (path, module) of the backbone's modules of a class, without those of adapters.

    A module that is used in several places appears once for each.
    """
    controllers = [path for path, module in model.named_modules() if isinstance(module, AdapterController)]
    return [
        (path, module)
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, cls)
        and not any(path.startswith(f"{controller}.") for controller in controllers)
        and ".branch" not in path
    ]


def _adapted_linear(model: nn.Module, path: str, config: AdapterConfig, switch: TaskSwitch) -> AdaptedLinear:
    """Return the AdaptedLinear at `path`; a plain linear layer is replaced by one first."""
    linear = model.get_submodule(path)
    if not isinstance(linear, AdaptedLinear):
        linear = AdaptedLinear(linear, config, switch)
        _replace(model, path, linear)
    return linear


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _build_like(tensor: torch.Tensor, make: Callable[..., Any], *arguments: Any) -> Any:
    """Build a module by `make(*arguments)`, on the device of `tensor` and for hidden states of its dtype."""
    with torch.device(tensor.device):
        return make(*arguments).to(tensor.dtype)
