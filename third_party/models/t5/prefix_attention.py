"""The attention of prefix-tuning: trained keys and values before all others, which every query sees.

Registered with transformers as an attention implementation, so that T5's own attention calls it with the keys and
values that it has, those of the cache among them; neither the cache nor the position bias knows of the prefix.
"""

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

NAME = "t5_prefixed"


def prefixed_attention(
    module, query, key, value, attention_mask, scaling=1.0, dropout=0.0, position_bias=None, **kwargs
):
    """query: (batch, heads, queries, d_kv); key, value: (batch, heads, keys, d_kv); attention_mask: added to the
    scores.

    Returns the output (batch, queries, heads, d_kv), and None: the attention weights are not kept.
    """
    length = module.prefix.keys.shape[1]
    key, value = module.prefix.prepend(key, value)
    bias = position_bias if attention_mask is None else position_bias + attention_mask
    bias = functional.pad(bias.expand(-1, -1, query.shape[2], -1), (length, 0)).to(query.dtype)
    output = functional.scaled_dot_product_attention(query, key, value, bias, dropout_p=dropout, scale=scaling)
    return output.transpose(1, 2).contiguous(), None


def additive_mask(*args, **kwargs) -> torch.Tensor | None:
    """The mask as numbers that are added to scores, whatever is hidden."""
    return eager_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


def use_prefixed_attention(model) -> None:
    """Let the encoder and the decoder of `model`, whose attentions have a `prefix`, use it."""
    for stack in (model.encoder, model.decoder):
        stack.config._attn_implementation = NAME


AttentionInterface.register(NAME, prefixed_attention)
AttentionMaskInterface.register(NAME, additive_mask)
