"""Trained vectors in front of what the backbone reads.

SoftPrompt: prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691), `prefix_dim` soft tokens before the
    encoder's input: prefix_dim * d_model numbers.
AttentionPrefix: prefix-tuning (Li & Liang 2021, https://arxiv.org/abs/2101.00190), trained keys and values before those
    of every attention: 2 * attention_prefix_length * (heads * d_kv) numbers each, without the paper's MLP.
"""

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart

FREQUENT_PIECES = 5000


class SoftPrompt(AdapterPart):
    """`embedding`: (prefix_dim, d_model), from U(-0.5, 0.5) or from as many of the 5,000 most frequent pieces."""

    component = "prompts"

    def __init__(self, config: AdapterConfig, vocabulary: nn.Embedding):
        super().__init__()
        rows, d_model = vocabulary.weight.shape
        if config.init_prefix_from_vocab:
            frequent = min(FREQUENT_PIECES, rows)
            pieces = torch.randperm(frequent).repeat(-(-config.prefix_dim // frequent))[: config.prefix_dim]
            start = vocabulary.weight.detach()[pieces].clone()
        else:
            start = torch.rand(config.prefix_dim, d_model) - 0.5
        self.embedding = nn.Parameter(start)

    def before_encoder(self, encoder: nn.Module, args: tuple, kwargs: dict):
        """A forward pre-hook of the encoder: the prompt before the tokens' embeddings, and a mask that shows it."""
        kwargs = dict(kwargs)
        if args:
            kwargs["input_ids"], *more = args
            kwargs |= dict(zip(("attention_mask",), more, strict=False))
        embeds = kwargs.pop("inputs_embeds", None)
        ids = kwargs.pop("input_ids", None)
        if embeds is None:
            embeds = encoder.embed_tokens(ids)
        prompt = self.embedding.to(embeds.dtype).expand(len(embeds), -1, -1)
        kwargs["inputs_embeds"] = torch.cat([prompt, embeds], dim=1)
        mask = kwargs.get("attention_mask")
        if mask is not None:
            kwargs["attention_mask"] = torch.cat([mask.new_ones(len(mask), len(self.embedding)), mask], dim=1)
        return (), kwargs

    def before_decoder(self, decoder: nn.Module, args: tuple, kwargs: dict):
        """A forward pre-hook of the decoder: the mask of the encoder's states, as long as they are."""
        mask, states = kwargs.get("encoder_attention_mask"), kwargs.get("encoder_hidden_states")
        if mask is None or states is None or mask.shape[1] == states.shape[1]:
            return None
        longer = torch.cat([mask.new_ones(len(mask), len(self.embedding)), mask], dim=1)
        return args, {**kwargs, "encoder_attention_mask": longer}


class AttentionPrefix(AdapterPart):
    """`keys`, `values`: (heads, attention_prefix_length, d_kv), which start from N(0, 1 / d_kv)."""

    component = "prompts"

    def __init__(self, config: AdapterConfig, heads: int, d_kv: int):
        super().__init__()
        size = (heads, config.attention_prefix_length, d_kv)
        self.keys = nn.Parameter(torch.randn(size) * d_kv**-0.5)
        self.values = nn.Parameter(torch.randn(size) * d_kv**-0.5)

    def prepend(self, key: torch.Tensor, value: torch.Tensor):
        """key, value: (batch, heads, length, d_kv) -> the same with attention_prefix_length rows in front."""
        both = ((self.keys, key), (self.values, value))
        return tuple(torch.cat([own.to(x.dtype).expand(len(x), -1, -1, -1), x], dim=2) for own, x in both)
