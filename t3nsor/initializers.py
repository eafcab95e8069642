"""Random tensor-train matrices with a chosen variance of their entries."""

import math

import torch

from t3nsor.shapes import check_matrix_shape, check_ranks
from t3nsor.tensor_train import TensorTrain


def matrix_with_random_cores(shape, rank=8, std=1.0, *, dtype=None, device=None, generator=None) -> TensorTrain:
    """A TT-matrix whose core entries are drawn from N(0, std^2).

    shape: ((n_1, .., n_d), (m_1, .., m_d)); rank: one inner rank or the list of d - 1 inner ranks.
    """
    rows, columns = check_matrix_shape(shape)
    ranks = check_ranks(rank, len(rows))
    sizes = zip(ranks, rows, columns, ranks[1:], strict=False)
    cores = [torch.randn(size, dtype=dtype, device=device, generator=generator) * std for size in sizes]
    return TensorTrain(cores)


def random_matrix(shape, rank=8, std=1.0, *, dtype=None, device=None, generator=None) -> TensorTrain:
    """A random TT-matrix (prod n_k, prod m_k) whose entries have mean 0 and variance std^2.

    An entry sums prod(inner ranks) products of d core entries, so each core takes the standard deviation
    std^(1/d) * prod(inner ranks)^(-1/(2d)).
    """
    rows, _ = check_matrix_shape(shape)
    d = len(rows)
    bonds = math.prod(check_ranks(rank, d))
    core_std = std ** (1 / d) * bonds ** (-1 / (2 * d))
    return matrix_with_random_cores(shape, rank, core_std, dtype=dtype, device=device, generator=generator)


def glorot_initializer(shape, rank=8, *, dtype=None, device=None, generator=None) -> TensorTrain:
    """A random TT-matrix with Glorot's entry variance 2 / (in + out) (Glorot & Bengio 2010)."""
    rows, columns = check_matrix_shape(shape)
    std = math.sqrt(2 / (math.prod(rows) + math.prod(columns)))
    return random_matrix(shape, rank, std, dtype=dtype, device=device, generator=generator)
