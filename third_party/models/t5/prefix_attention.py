"""The attention of prefix-tuning: trained keys and values in front of all others, visible to every query.

It is registered with transformers as an attention implementation, so T5's attention calls it with all its keys and
values, cached ones included. The prefix is neither in the cache nor in the position bias. While adapters are switched
off, the implementation that it replaced makes the mask and computes the attention.
"""

import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.t5.modeling_t5 import T5Attention, eager_attention_forward

from adapters import TaskSwitch

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

NAME = "t5_prefixed"


class _MaskMaker(threading.local):
    """Who makes the masks of the stack that this thread runs: an implementation by name, or None for this one.

    A mask is made in the stack's own forward pass, by a function that is not given the stack.
    """

    name: str | None = None


MASK_MAKER = _MaskMaker()


def prefixed_attention(
    module: T5Attention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float = 1.0,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Compute scaled dot-product attention with the prefix of `module` in front of key and value.

    query: (batch, heads, queries, d_kv).
    key, value: (batch, heads, keys, d_kv).
    attention_mask, position_bias: added to the scores, (batch or 1, heads or 1, queries or 1, keys).
    Returns the output (batch, queries, heads, d_kv), and None in place of the attention weights.
    """
    if not module.prefix.switch.enabled:
        replaced = ALL_ATTENTION_FUNCTIONS.get_interface(module.prefix.replaced, eager_attention_forward)
        options = {"scaling": scaling, "dropout": dropout, "position_bias": position_bias, **kwargs}
        return replaced(module, query, key, value, attention_mask, **options)
    length = module.prefix.keys.shape[1]
    key, value = module.prefix.prepend(key, value)
    bias = position_bias if attention_mask is None else position_bias + attention_mask
    bias = functional.pad(bias.expand(-1, -1, query.shape[2], -1), (length, 0)).to(query.dtype)
    output = functional.scaled_dot_product_attention(query, key, value, bias, dropout_p=dropout, scale=scaling)
    return output.transpose(1, 2).contiguous(), None


def make_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """The mask as numbers that are added to the scores, never skipped in favour of an `is_causal` flag."""
    if MASK_MAKER.name is not None:
        return AttentionMaskInterface()[MASK_MAKER.name](*args, **kwargs)
    return eager_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def use_prefixed_attention(model: "T5ForConditionalGeneration", switch: TaskSwitch) -> None:
    """Select this attention for the encoder and the decoder of `model`, whose attentions have a `prefix`."""
    for stack in (model.encoder, model.decoder):
        choose = partial(choose_mask_maker, switch, stack.config._attn_implementation)
        model.adapter_hooks.append(stack.register_forward_pre_hook(choose))
        stack.config._attn_implementation = NAME


def choose_mask_maker(switch: TaskSwitch, replaced: str, stack: nn.Module, args: tuple[Any, ...]) -> None:
    """Let `replaced` make the masks of the stack that runs next if adapters are switched off."""
    MASK_MAKER.name = None if switch.enabled else replaced


AttentionInterface.register(NAME, prefixed_attention)
AttentionMaskInterface.register(NAME, make_mask)
