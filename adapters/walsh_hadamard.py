"""The Walsh-Hadamard transform, and the vector R H B theta that fastfood projections have in common."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional


def hadamard_factors(length: int) -> list[torch.Tensor]:
    """Hadamard matrices of at most 64 rows whose Kronecker product is that of `length` rows, a power of two.

    H_ij = (-1)^(number of binary ones that i and j have in common).
    """
    factors: list[torch.Tensor] = []
    done = 1
    two = torch.tensor([[1.0, 1.0], [1.0, -1.0]], device="cpu")
    while done < length or not factors:
        h = torch.ones(1, 1, device="cpu")
        while len(h) < min(64, length // done):
            h = torch.kron(two, h)
        factors.append(h)
        done *= len(h)
    return factors


def walsh_hadamard(x: torch.Tensor, factors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return x H, the Walsh-Hadamard transform along the last dimension of x; `factors` are those of its size."""
    shape, (first, *others) = x.shape, factors
    x = x.reshape(-1, len(first)) @ first
    for h in others:
        x = x.reshape(-1, len(h), x.shape[1:].numel())
        x = torch.bmm(h.expand(len(x), -1, -1), x)
    return x.reshape(shape)


class Mixing(torch.autograd.Function):
    """R H B theta, (L,). Saves nothing, so any number of backward passes may go through one result.

    theta: (d,). signs, order, back: (L,), B, R and the inverse of R. factors: those of H.
    """

    @staticmethod
    def forward(
        theta: torch.Tensor,
        signs: torch.Tensor,
        order: torch.Tensor,
        back: torch.Tensor,
        factors: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        return mixed(theta, signs, order, factors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        theta, ctx.signs, _, ctx.back, ctx.factors = inputs
        ctx.d = len(theta)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (walsh_hadamard(gradient[ctx.back], ctx.factors) * ctx.signs)[: ctx.d], None, None, None, None


def mixed(
    theta: torch.Tensor, signs: torch.Tensor, order: torch.Tensor, factors: Sequence[torch.Tensor]
) -> torch.Tensor:
    """R H B theta, (L,), of theta (d,)."""
    return walsh_hadamard(functional.pad(theta, (0, len(signs) - len(theta))) * signs, factors)[order]
