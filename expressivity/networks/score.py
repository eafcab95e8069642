"""The score functions of tensor trains, processed position by position like a recurrent network.

Khrulkov, Novikov and Oseledets 2018, https://arxiv.org/abs/1711.00811, and with activations Khrulkov, Hrinchuk and
Oseledets 2019, https://arxiv.org/abs/1901.10801.
"""

import math

import torch
from torch import nn

from expressivity.networks.activations import activation as named
from t3nsor.shapes import Rank, check_ranks

PRODUCTS = ("multiply", "rectifier")


class TensorTrainScore(nn.Module):
    """h_t[k] = sum_ij G_t[i, j, k] xi(h_{t-1}[i], x_t[j]), from h_0 to the score h_N.

    positions: N, the number of vectors x_1 .. x_N.
    features: n, their size.
    rank: one inner rank or the list of N - 1 inner ranks; the first rank is 1.
    outputs: the last rank, the number of scores.
    activation_between_cores: name of an activation, or a module, on h_1 .. h_{N-1}; None: no activation.
    product: "multiply", xi(h, x) = h x and h_0 = 1: a tensor train contracted with one vector after another; or
        "rectifier", xi(h, x) = max(h, C_t x, 0) and h_0 = 0, the generalised product of the second paper, where C_t
        (features, features) is trained as well.

    Raises ValueError for another product, activation or rank.
    """

    def __init__(
        self,
        positions: int,
        features: int,
        rank: Rank,
        outputs: int = 1,
        activation_between_cores: str | nn.Module | None = None,
        product: str = "multiply",
    ):
        super().__init__()
        if product not in PRODUCTS:
            raise ValueError(f"product is {product!r}; allowed: {', '.join(PRODUCTS)}")
        if min(positions, features, outputs) < 1:
            given = f"positions is {positions}, features is {features}, outputs is {outputs}"
            raise ValueError(f"{given}; each must be at least 1")
        ranks = [*check_ranks(rank, positions)[:-1], outputs]
        self.product = product
        self.cores = nn.ParameterList(
            torch.randn(left, features, right) / math.sqrt(left * features)
            for left, right in zip(ranks, ranks[1:], strict=False)
        )
        count, scale = positions if product == "rectifier" else 0, math.sqrt(features)
        self.maps = nn.ParameterList(torch.randn(features, features) / scale for _ in range(count))
        between = activation_between_cores
        self.activation = None if between is None else named(between)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., positions, features) -> (.., outputs)."""
        if x.shape[-2:] != (len(self.cores), self.cores[0].shape[1]):
            wanted = (len(self.cores), self.cores[0].shape[1])
            raise ValueError(f"x has shape {tuple(x.shape)}; its last dimensions must be {wanted}")
        start = torch.zeros if self.product == "rectifier" else torch.ones
        state = start(*x.shape[:-2], 1, dtype=x.dtype, device=x.device)
        for t, core in enumerate(self.cores):
            if t and self.activation is not None:
                state = self.activation(state)
            vector = x[..., t, :]
            if self.product == "rectifier":
                entries = torch.maximum(state[..., :, None], (vector @ self.maps[t].T)[..., None, :]).clamp_min(0)
            else:
                entries = state[..., :, None] * vector[..., None, :]
            state = entries.flatten(-2) @ core.flatten(0, 1)
        return state
