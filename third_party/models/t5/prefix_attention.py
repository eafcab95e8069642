"""The attention of prefix-tuning: trained keys and values in front of all others, visible to every query.

It is registered with transformers as an attention implementation, so T5's attention calls it with all its keys and
values, cached ones included. The prefix is neither in the cache nor in the position bias.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask
from transformers.models.t5.modeling_t5 import T5Attention

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

NAME = "t5_prefixed"


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
) -> tuple[torch.Tensor, None]:
    """Compute scaled dot-product attention with the prefix of `module` in front of key and value.

    query: (batch, heads, queries, d_kv).
    key, value: (batch, heads, keys, d_kv).
    attention_mask, position_bias: added to the scores, (batch or 1, heads or 1, queries or 1, keys).
    Returns the output (batch, queries, heads, d_kv), and None in place of the attention weights.
    """
    length = module.prefix.keys.shape[1]
    key, value = module.prefix.prepend(key, value)
    bias = position_bias if attention_mask is None else position_bias + attention_mask
    bias = functional.pad(bias.expand(-1, -1, query.shape[2], -1), (length, 0)).to(query.dtype)
    output = functional.scaled_dot_product_attention(query, key, value, bias, dropout_p=dropout, scale=scaling)
    return output.transpose(1, 2).contiguous(), None


def additive_mask(*args: Any, **kwargs: Any) -> torch.Tensor | None:
    """The mask as numbers that are added to the scores, never skipped in favour of an `is_causal` flag."""
    return eager_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def use_prefixed_attention(model: "T5ForConditionalGeneration") -> None:
    """Select this attention for the encoder and the decoder of `model`, whose attentions have a `prefix`."""
    for stack in (model.encoder, model.decoder):
        stack.config._attn_implementation = NAME


AttentionInterface.register(NAME, prefixed_attention)
AttentionMaskInterface.register(NAME, additive_mask)
