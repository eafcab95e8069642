"""Embedding tables as tensor trains or rings (Hrinchuk et al. 2019, https://arxiv.org/abs/1901.10787)."""

import math
from typing import Any

import torch
from torch import nn

from t3nsor.cores import FreezeCores
from t3nsor.errors import ShapeError
from t3nsor.excess import warn_if_larger
from t3nsor.initializers import random_matrix
from t3nsor.layers import cut
from t3nsor.shapes import MatrixShape, Rank, auto_shape, check_matrix_shape, suggest_shape


class TTEmbedding(nn.Module):
    """An embedding table (num_embeddings, embedding_dim) that is a TT-matrix; only the requested rows are contracted.

    num_embeddings: rows of the table.
    embedding_dim: size of a row.
    rank: one inner rank or the list of d - 1.
    d: number of cores, used if `shape` is None; the table is then padded to the next number of rows that splits well
        (`suggest_shape`).
    shape: ((n_1, .., n_d), (m_1, .., m_d)), prod n_k at least num_embeddings, prod m_k = embedding_dim.
    pad: True to pad the rows themselves as well, where embedding_dim splits badly: prod m_k is then at least
        embedding_dim.
    std: standard deviation of the entries at the start.
    freeze_cores: see `TTLinear`.

    State-dict keys: `weight.cores.0` .. , each (r_{k-1}, n_k, m_k, r_k).
    Raises ShapeError for sizes that do not fit. Warns, with ShapeWarning, if it has more parameters than a dense table.
    """

    ring = False

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        rank: Rank = 8,
        d: int = 3,
        shape: MatrixShape | None = None,
        pad: bool = False,
        std: float = 1.0,
        freeze_cores: FreezeCores = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__()
        if shape is None:
            shape = suggest_shape(num_embeddings, d), auto_shape(embedding_dim, d, pad=pad)
        rows, columns = check_matrix_shape(shape, None, embedding_dim, pad)
        if math.prod(rows) < num_embeddings:
            raise ShapeError(f"shape {shape} has {math.prod(rows)} rows; the table needs {num_embeddings}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.std = std
        options: dict[str, Any] = {"freeze_cores": freeze_cores, "device": device, "dtype": dtype}
        self.weight = random_matrix((rows, columns), rank, std, ring=self.ring, trainable=True, **options)
        warn_if_larger(type(self).__name__, self.weight, (num_embeddings, embedding_dim))

    def reset_parameters(self) -> None:
        """Draw the cores again, as at the start."""
        drawn = random_matrix(self.weight.raw_shape, self.weight.inner_ranks, self.std, ring=self.ring)
        self.weight.copy_(drawn)

    def full(self) -> torch.Tensor:
        """The dense table (num_embeddings, embedding_dim)."""
        return self.weight.full()[: self.num_embeddings, : self.embedding_dim]

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        """index: integers from 0 to num_embeddings - 1, of any shape -> (*index.shape, embedding_dim)."""
        index = torch.as_tensor(index)
        if index.device.type == "cpu" and not torch.compiler.is_compiling() and (index >= self.num_embeddings).any():
            raise ShapeError(
                f"index is {index.max().item()}; it must be less than {self.num_embeddings}, the rows of the table"
            )
        return cut(self.weight.gather_rows(index), self.embedding_dim)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


class TREmbedding(TTEmbedding):
    """`TTEmbedding` with a tensor ring; `rank` is one rank for all bonds or the list r_0 .. r_{d-1}."""

    ring = True
