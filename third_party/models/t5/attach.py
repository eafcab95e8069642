"""Where each kind of method attaches to T5. Every module of the backbone keeps its name and its state-dict keys."""

from collections.abc import Iterator

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
    TaskSwitch,
    build,
    sites,
)
from adapters.intrinsic import AdaptedEmbedding, AdaptedNorm, IntrinsicDelta
from adapters.norms import NormPart
from third_party.models.t5.prefix_attention import use_prefixed_attention

DEFAULT_TARGETS = ("wi", "wo")
NAMED_BY = {"wi_0": "wi", "wi_1": "wi"}  # of the gated feed-forward


def attach(model, config: AdapterConfig, switch: TaskSwitch) -> None:
    """Put the methods that `config` chooses on their sites, in the dtype and on the device of what is there."""
    shared = SharedParts()
    for site, function in SITES.items():
        if site in config.methods:
            function(model, config, shared, switch)


def _after_sublayers(model, config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    for site in model.config.adapter_sites(config):
        layer = model.get_submodule(site.path)
        arguments = config, model.config.d_model, switch, shared
        controller = _like(layer.layer_norm.weight, AdapterController, *arguments)
        layer.add_module("adapter_controller", controller)
        getattr(layer, site.sublayer).register_forward_hook(controller.adapt_output)


def _beside_linears(model, config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    chosen = METHODS[config.methods[sites.BESIDE_LINEAR]].cls.targets or config.lora_targets or DEFAULT_TARGETS
    found = [(path, *rest, model.get_submodule(path)) for path, *rest in _linears(model, config, chosen)]
    for path, target, layer, linear in found:
        alike = [other for other in found if _sizes(other[-1]) == _sizes(linear)]
        targets, layers = (list(dict.fromkeys(column)) for column in list(zip(*alike, strict=True))[1:3])
        place = Place(target, layers.index(layer), len(layers), tuple(targets))
        branch = _like(linear.weight, build, config, sites.BESIDE_LINEAR, linear, place, shared)
        _adapted(model, path, config).branch = branch


def _sizes(linear: nn.Linear) -> list[int]:
    return sorted((linear.in_features, linear.out_features))


def _linears(model, config: AdapterConfig, chosen) -> Iterator[tuple[str, str, int]]:
    """(path, name of the kind, number of the block) of the linear layers that `chosen` names."""
    for stack, block, number in model.config.adapted_blocks(config):
        prefix = f"{stack}.block.{block}"
        for name, module in model.get_submodule(prefix).named_modules():
            kind = name.rpartition(".")[2]
            if isinstance(module, nn.Linear) and NAMED_BY.get(kind, kind) in chosen:
                yield f"{prefix}.{name}", f"EncDecAttention.{kind}" if "EncDec" in name else kind, number


def _instead_of_norms(model, config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    for path, norm in _modules(model, T5LayerNorm):
        _replace(model, path, _like(norm.weight, build, config, sites.INSTEAD_OF_NORM, norm, shared))


def _on_biases(model, config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    for path, linear in _modules(model, nn.Linear):
        if path == "lm_head" and config.freeze_bitfit_lm_head_all:
            continue
        bias = _like(linear.weight, build, config, sites.ON_BIAS, linear.out_features, shared)
        _adapted(model, path, config).added_bias = bias
    for _, norm in _modules(model, T5LayerNorm | NormPart):
        bias = _like(next(norm.parameters()), build, config, sites.ON_BIAS, model.config.d_model, shared)
        norm.add_module("added_bias", bias)
        norm.register_forward_hook(bias.add_to_output)


def _before_encoder(model, config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    prompt = _like(model.shared.weight, build, config, sites.BEFORE_ENCODER, model.shared)
    model.encoder.add_module("prompt", prompt)
    model.encoder.register_forward_pre_hook(prompt.before_encoder, with_kwargs=True)
    model.decoder.register_forward_pre_hook(prompt.before_decoder, with_kwargs=True)


def _in_attention(model, config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    sizes = model.config.num_heads, model.config.d_kv
    for _, attention in _modules(model, T5Attention):
        attention.add_module("prefix", _like(attention.k.weight, build, config, sites.IN_ATTENTION, *sizes))
    use_prefixed_attention(model)


def _on_weights(model, config: AdapterConfig, shared: SharedParts, switch: TaskSwitch) -> None:
    tensors = list(model.parameters())  # a tied one appears once
    numbers = {tensor: number for number, tensor in enumerate(tensors)}
    sizes = [tensor.numel() for tensor in tensors]
    subspace = _like(tensors[0], build, config, sites.ON_WEIGHTS, sizes)
    adapted = {}
    for kind, cls in ((nn.Linear, AdaptedLinear), (nn.Embedding, AdaptedEmbedding), (T5LayerNorm, AdaptedNorm)):
        for path, module in _modules(model, kind):
            key = cls, module.weight  # the encoder's and the decoder's embedding are one
            if key not in adapted:
                adapted[key] = cls(module, config)
                adapted[key].branch = IntrinsicDelta(subspace, numbers[module.weight], module.weight.shape)
            _replace(model, path, adapted[key])


SITES = {
    sites.AFTER_SUBLAYER: _after_sublayers,
    sites.INSTEAD_OF_NORM: _instead_of_norms,
    sites.BESIDE_LINEAR: _beside_linears,
    sites.ON_BIAS: _on_biases,  # after what may replace the modules that carry them
    sites.BEFORE_ENCODER: _before_encoder,
    sites.IN_ATTENTION: _in_attention,
    sites.ON_WEIGHTS: _on_weights,
}


def _modules(model: nn.Module, kind) -> list[tuple[str, nn.Module]]:
    """The backbone's modules of a kind by every path they have, those of adapters left out."""
    inside = [path for path, module in model.named_modules() if isinstance(module, AdapterController)]
    return [
        (path, module)
        for path, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, kind)
        and not any(path.startswith(f"{other}.") for other in inside)
        and ".branch" not in path
    ]


def _adapted(model: nn.Module, path: str, config: AdapterConfig) -> AdaptedLinear:
    """The linear layer at `path`, made one that can carry a branch and a bias."""
    linear = model.get_submodule(path)
    if not isinstance(linear, AdaptedLinear):
        linear = AdaptedLinear(linear, config)
        _replace(model, path, linear)
    return linear


def _replace(model: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def _like(tensor: torch.Tensor, make, *arguments) -> nn.Module:
    """`make(*arguments)` on the device and in the dtype of `tensor`."""
    with torch.device(tensor.device):
        return make(*arguments).to(tensor.dtype)
