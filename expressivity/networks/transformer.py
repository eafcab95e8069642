"""A small transformer over sequences of vectors."""

import math

import torch
from torch import nn

from expressivity.networks.activations import activation as named


class Transformer(nn.Module):
    """Encoder blocks of the width `width` between two linear maps from and to `features`.

    Blocks normalise first (https://arxiv.org/abs/2002.04745): x + attention(norm(x)), x + feed_forward(norm(x)).
    hidden: width of the feed-forward layer, None: 2 * width. split_activation: an activation on queries and keys just
    before their product (split transformers), or None. attention_gain: weights of queries and keys are drawn from
    N(0, attention_gain^2 / width), with which the products that enter the softmax have the standard deviation
    attention_gain^2; small ones leave the attention uniform, and queries and keys without effect.
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
            raise ValueError(f"width is {width} and heads {heads}; the heads share the width in equal parts")
        self.enter, self.leave = nn.Linear(features, width), nn.Linear(width, features)
        hidden = 2 * width if hidden is None else hidden
        blocks = (Block(width, heads, hidden, split_activation, attention_gain) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (rows, tokens, features) -> (rows, tokens, features)."""
        return self.leave(self.blocks(self.enter(x)))


class Block(nn.Module):
    """Attention and a feed-forward layer, each with a norm before and a residual connection around it."""

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
