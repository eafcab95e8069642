"""Trained vectors in front of the backbone's inputs, or of its keys and values.

SoftPrompt: prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691), prefix_dim soft tokens in front of the
    encoder's input: prefix_dim * d_model parameters.
AttentionPrefix: prefix-tuning (Li & Liang 2021, https://arxiv.org/abs/2101.00190), trained keys and values in front of
    those of each attention: 2 * attention_prefix_length * heads * d_kv parameters each, without the paper's MLP.
"""

from typing import Any

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart
from adapters.task_switch import TaskSwitch
from t3nsor.autocast import without_autocast

FREQUENT_TOKENS = 5000


class SoftPrompt(AdapterPart):
    """`embedding`: (prefix_dim, d_model), initialised from U(-0.5, 0.5), or with init_prefix_from_vocab from the
    embeddings of random ones of the 5,000 most frequent tokens (the vocabulary is sorted by frequency)."""

    component = "prompts"

    def __init__(self, config: AdapterConfig, vocabulary: nn.Embedding):
        super().__init__()
        rows, d_model = vocabulary.weight.shape
        if config.init_prefix_from_vocab:
            frequent = min(FREQUENT_TOKENS, rows)
            tokens = torch.randperm(frequent).repeat(-(-config.prefix_dim // frequent))[: config.prefix_dim]
            start = vocabulary.weight.detach()[tokens].clone()
        else:
            start = torch.rand(config.prefix_dim, d_model) - 0.5
        self.embedding = nn.Parameter(start)

    def before_encoder(
        self, encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        """Put the prompt in front of the token embeddings and extend the mask; a forward pre-hook of the encoder."""
        kwargs = dict(kwargs)
        if args:
            kwargs["input_ids"], *more = args
            kwargs |= dict(zip(("attention_mask",), more, strict=False))
        embeds = kwargs.pop("inputs_embeds", None)
        ids = kwargs.pop("input_ids", None)
        if embeds is None:
            embeds = encoder.get_submodule("embed_tokens")(ids)
        prompt = self.embedding.to(embeds.dtype).expand(len(embeds), -1, -1)
        with without_autocast(embeds.device):  # it refuses tensors in the other half precision
            kwargs["inputs_embeds"] = torch.cat([prompt, embeds], dim=1)
        mask = kwargs.get("attention_mask")
        if mask is not None:
            kwargs["attention_mask"] = torch.cat([mask.new_ones(len(mask), len(self.embedding)), mask], dim=1)
        return (), kwargs

    def before_decoder(
        self, decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Extend the mask of the encoder's states by the prompt, if they have it; a forward pre-hook of the decoder."""
        mask, states = kwargs.get("encoder_attention_mask"), kwargs.get("encoder_hidden_states")
        if mask is None or states is None or mask.shape[1] == states.shape[1]:
            return None
        longer = torch.cat([mask.new_ones(len(mask), len(self.embedding)), mask], dim=1)
        return args, {**kwargs, "encoder_attention_mask": longer}


class AttentionPrefix(AdapterPart):
    """`keys` and `values`: (heads, attention_prefix_length, d_kv), initialised from N(0, 1 / d_kv).

    switch: while it is off, the attention is that called `replaced`.
    replaced: name of the attention implementation that the backbone has.
    """

    component = "prompts"

    def __init__(self, config: AdapterConfig, heads: int, d_kv: int, switch: TaskSwitch, replaced: str):
        super().__init__()
        self.switch, self.replaced = switch, replaced
        size = (heads, config.attention_prefix_length, d_kv)
        self.keys = nn.Parameter(torch.randn(size) * d_kv**-0.5)
        self.values = nn.Parameter(torch.randn(size) * d_kv**-0.5)

    def prepend(self, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the prefix in front of key and value, (batch, heads, length, d_kv), along the length."""

        def with_prefix(prefix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([prefix.to(x.dtype).expand(len(x), -1, -1, -1), x], dim=2)

        return with_prefix(self.keys, key), with_prefix(self.values, value)
