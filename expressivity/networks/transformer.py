"""A small transformer over sequences of vectors."""

import math

import torch
from torch import nn

from expressivity.networks.activations import activation as named


class Transformer(nn.Module):
    """Pre-norm encoder blocks (https://arxiv.org/abs/2002.04745) between two linear maps from and to `features`.

    features: size of the input and output vectors.
    width: width of the blocks.
    heads: number of attention heads; must divide `width`.
    depth: number of blocks.
    hidden: width of the feed-forward layer; None: 2 * width.
    split_activation: activation on queries and keys before their product (split transformers); None: no activation.
    attention_gain: weights of queries and keys are drawn from N(0, attention_gain^2 / width). Attention scores then
        have standard deviation attention_gain^2; with a small one the attention is nearly uniform, and queries and
        keys have no effect.

    Raises ValueError if `heads` does not divide `width`.
    """

    def __init__(
        self,
        features: int,
        width: int,
        heads: int = 1,
        depth: int = 1,
        hidden: int | None = None,
        split_activation: str | None = None,
        attention_gain: float = 1.0,
    ):
        super().__init__()
        if width % heads:
            raise ValueError(f"width is {width} and heads is {heads}; width must be divisible by heads")
        self.enter, self.leave = nn.Linear(features, width), nn.Linear(width, features)
        hidden = 2 * width if hidden is None else hidden
        blocks = (Block(width, heads, hidden, split_activation, attention_gain) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, tokens, features) -> (rows, tokens, features)."""
        return self.leave(self.blocks(self.enter(x)))


class Block(nn.Module):
    """A pre-norm block: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, width: int, heads: int, hidden: int, split_activation: str | None, attention_gain: float):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.queries, self.keys, self.values, self.output = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.queries, self.keys):
            nn.init.normal_(layer.weight, std=attention_gain / math.sqrt(width))
        self.on_queries, self.on_keys = (named(split_activation or "identity") for _ in range(2))
        self.feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, tokens, width) -> (rows, tokens, width)."""
        x = x + self._attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._split(layer(x)) for layer in (self.queries, self.keys, self.values))
        scores = self.on_queries(q) @ self.on_keys(k).mT / math.sqrt(q.shape[-1])
        return self.output((torch.softmax(scores, dim=-1) @ v).transpose(-3, -2).flatten(-2))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(rows, tokens, width) -> (rows, heads, tokens, width / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)
