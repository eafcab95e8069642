"""Detaching: everything that attaching and freezing changed in a T5 is undone."""

from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

from adapters import AdaptedLinear, AdapterPart, MergedWeight
from adapters.intrinsic import AdaptedEmbedding, AdaptedNorm
from adapters.norms import NormPart
from third_party.models.t5.trained_modules import round_trained_weights

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


def detach(model: "T5ForConditionalGeneration") -> None:
    """Remove what was attached to `model`, put its own modules back, and let all of its parameters require gradients.

    What was trained of the backbone itself stays trained, rounded to the backbone's dtype, as it was wherever it was
    used.
    """
    for handle in model.adapter_hooks:
        handle.remove()
    model.adapter_hooks.clear()
    _restore_attention(model)
    round_trained_weights(model)
    _put_back(model)
    model.requires_grad_(True)
    model.zero_grad()


def _restore_attention(model: "T5ForConditionalGeneration") -> None:
    for module in model.modules():
        if isinstance(module, T5Attention) and hasattr(module, "prefix"):
            module.config._attn_implementation = module.prefix.replaced  # the stack's configuration as well


def _put_back(parent: nn.Module) -> None:
    """Put the backbone's modules back below `parent`. Each place has a module of its own, though weights are tied."""
    for name, child in list(parent.named_children()):
        if isinstance(child, NormPart | MergedWeight):
            setattr(parent, name, plain_module(child))
        elif isinstance(child, AdapterPart):
            delattr(parent, name)
        else:
            _put_back(child)


def plain_module(module: NormPart | MergedWeight) -> nn.Module:
    """The backbone's module that `module` stands for, with the same tensors."""
    with torch.device("meta"):  # the tensors are there already
        if isinstance(module, NormPart | AdaptedNorm):
            plain: nn.Module = T5LayerNorm(0, module.eps)
        elif isinstance(module, AdaptedEmbedding):
            plain = nn.Embedding(*module.weight.shape)
        else:
            assert isinstance(module, AdaptedLinear)
            plain = nn.Linear(module.in_features, module.out_features)
            plain.register_parameter("bias", module.bias)
    if isinstance(module, NormPart):
        plain.weight = nn.Parameter(module.replaced.to(module.compute_dtype))
    else:
        module.unmerge()
        plain.weight = module.weight
    return plain.train(module.training)
