"""Dense matrices to tensor-train format by successive truncated SVDs (TT-SVD, Oseledets 2011)."""

import math

import torch

from t3nsor.errors import ShapeError
from t3nsor.shapes import check_matrix_shape, check_ranks
from t3nsor.tensor_train import TensorTrain


def to_tt_matrix(matrix: torch.Tensor, shape, max_rank=None, epsilon: float = 0.0) -> TensorTrain:
    """Approximate `matrix` by a TT-matrix.

    matrix: (in, out), with in = prod n_k and out = prod m_k of `shape` = ((n_1, .., n_d), (m_1, .., m_d)).
    max_rank: bound on every inner rank, or the list of d - 1 bounds; None: no bound.
    epsilon: bound on the relative error in the Frobenius norm (honoured where `max_rank` leaves room); 0: exact.
    """
    if matrix.dim() != 2:
        raise ShapeError(f"to_tt_matrix: the matrix has shape {tuple(matrix.shape)}; it must have two dimensions")
    if not torch.isfinite(matrix).all():
        raise ShapeError(f"to_tt_matrix: the matrix of shape {tuple(matrix.shape)} holds NaN or infinity")
    if epsilon < 0:
        raise ShapeError(f"to_tt_matrix: epsilon is {epsilon}; it must be at least 0")
    rows, columns = check_matrix_shape(shape, *matrix.shape)
    d = len(rows)
    bounds = check_ranks(max_rank if max_rank is not None else math.prod(matrix.shape), d)
    interleaved = [axis for k in range(d) for axis in (k, d + k)]
    rest = matrix.reshape(*rows, *columns).permute(interleaved)
    budget = epsilon * torch.linalg.vector_norm(matrix) / math.sqrt(max(d - 1, 1))

    cores, rank = [], 1
    for k in range(d - 1):
        u, s, vh = torch.linalg.svd(rest.reshape(rank * rows[k] * columns[k], -1), full_matrices=False)
        kept = min(_smallest_rank(s, budget), bounds[k + 1])
        cores.append(u[:, :kept].reshape(rank, rows[k], columns[k], kept))
        rest, rank = s[:kept, None] * vh[:kept], kept
    cores.append(rest.reshape(rank, rows[-1], columns[-1], 1))
    return TensorTrain(cores)


def _smallest_rank(singular_values: torch.Tensor, budget) -> int:
    """The fewest singular values that may be kept so that the norm of the dropped ones is at most `budget`."""
    dropped_norms = singular_values.flip(0).square().cumsum(0).sqrt()
    return max(1, singular_values.numel() - int((dropped_norms <= budget).sum()))
