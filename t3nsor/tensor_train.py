"""A matrix or tensor in tensor-train format (Oseledets 2011, https://doi.org/10.1137/090752286)."""

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from t3nsor.errors import ShapeError


class TensorTrain:
    """A chain of cores; every entry is a product of one slice of each.

    cores: d tensors. A tensor n_1 x .. x n_d has cores (r_{k-1}, n_k, r_k); a matrix with rows n_1 .. n_d and columns
        m_1 .. m_d has cores (r_{k-1}, n_k, m_k, r_k). r_0 = r_d = 1. Cores may require gradients: all operations
        are differentiable.
    """

    def __init__(self, cores: Sequence[torch.Tensor]):
        self.cores = list(cores)
        shapes = [tuple(core.shape) for core in self.cores]
        if not shapes:
            raise ShapeError("a tensor train needs at least one core")
        if {len(shape) for shape in shapes} not in ({3}, {4}):
            raise ShapeError(f"cores of shapes {shapes}: all need 3 dimensions (tensor) or all 4 (matrix)")
        if shapes[0][0] != 1 or shapes[-1][-1] != 1:
            raise ShapeError(f"cores of shapes {shapes}: the first and the last rank must be 1")
        if any(left[-1] != right[0] for left, right in zip(shapes, shapes[1:], strict=False)):
            raise ShapeError(f"cores of shapes {shapes}: each core must end with the rank with which the next begins")

    @property
    def is_matrix(self) -> bool:
        return self.cores[0].dim() == 4

    @property
    def ranks(self) -> tuple[int, ...]:
        """(r_0, .., r_d)."""
        return (*(core.shape[0] for core in self.cores), self.cores[-1].shape[-1])

    @property
    def raw_shape(self) -> tuple[tuple[int, ...], ...]:
        """((n_1, .., n_d),) of a tensor, ((n_1, .., n_d), (m_1, .., m_d)) of a matrix."""
        return tuple(zip(*(tuple(core.shape[1:-1]) for core in self.cores), strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `full()`."""
        if self.is_matrix:
            return tuple(math.prod(side) for side in self.raw_shape)
        return self.raw_shape[0]

    def numel(self) -> int:
        """Number of stored parameters, over all cores."""
        return sum(core.numel() for core in self.cores)

    def full(self) -> torch.Tensor:
        """The dense tensor (n_1, .., n_d), or the dense matrix (prod n_k, prod m_k)."""
        kind = self.cores[0].device.type
        # The product of the cores is small; under autocast it would be rounded core by core.
        with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
            dense = self.cores[0]
            for core in self.cores[1:]:
                dense = torch.tensordot(dense, core, dims=1)
        dense = dense.squeeze(0).squeeze(-1)
        if not self.is_matrix:
            return dense
        d = len(self.cores)
        rows_first = [2 * k for k in range(d)] + [2 * k + 1 for k in range(d)]
        return dense.permute(rows_first).reshape(self.shape)

    def __repr__(self) -> str:
        sides = " -> ".join("x".join(map(str, side)) for side in self.raw_shape)
        entries = math.prod(self.shape)
        return (
            f"TensorTrain({sides}, ranks={self.ranks}, {self.numel()} parameters for {entries} entries, "
            f"compression {entries / self.numel():.1f}x)"
        )
