"""Decompose dense tensors and matrices into chains of cores by successive truncated SVDs.

Trains: TT-SVD (Oseledets 2011, https://doi.org/10.1137/090752286). Rings: TR-SVD (Zhao et al. 2016,
https://arxiv.org/abs/1606.05535). All four functions take:

max_rank: bound on every rank, or the list of bounds (d - 1 inner ranks of a train, r_0 .. r_{d-1} of a ring), or None.
epsilon: bound on the relative error in the Frobenius norm, kept where `max_rank` allows it. 0: exact up to rounding;
    singular values that are zero up to rounding are dropped.

dtype: of the cores; None: that of the tensor.

The bounds hold at every scale. The norm is in the last core, or spread over all of them by powers of two if one core
could not hold it well. Tensors of half precision are decomposed in float32. Gradients flow to the tensor: the first
derivative, where kept and dropped singular values differ; for a ring that is not exact, with the split of the first
rank held constant. All raise ShapeError for NaN, infinity, or sizes that do not fit.
"""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch.nn.functional import pad

from t3nsor.arithmetic import UNBOUNDED, TruncatedSVD
from t3nsor.autocast import without_autocast
from t3nsor.errors import ShapeError
from t3nsor.scaling import normalised, rejoined, wide
from t3nsor.shapes import MatrixShape, Rank, check_matrix_shape, check_ranks
from t3nsor.tensor_train import CoreChain, TensorRing, TensorTrain

Chain = TypeVar("Chain", bound=CoreChain)


def to_tt_tensor(
    tensor: torch.Tensor, max_rank: Rank | None = None, epsilon: float = 0.0, *, dtype: torch.dtype | None = None
) -> TensorTrain:
    """Approximate `tensor`, (n_1, .., n_d), by a tensor train."""
    return _to_tensor(tensor, TensorTrain, max_rank, epsilon, dtype, "to_tt_tensor")


def to_tr_tensor(
    tensor: torch.Tensor, max_rank: Rank | None = None, epsilon: float = 0.0, *, dtype: torch.dtype | None = None
) -> TensorRing:
    """Approximate `tensor`, (n_1, .., n_d), by a tensor ring.

    The rank of the first unfolding is split into r_0 * r_1, as equal as possible, padded with zeros where necessary.
    """
    return _to_tensor(tensor, TensorRing, max_rank, epsilon, dtype, "to_tr_tensor")


def to_tt_matrix(
    matrix: torch.Tensor,
    shape: MatrixShape,
    max_rank: Rank | None = None,
    epsilon: float = 0.0,
    *,
    dtype: torch.dtype | None = None,
) -> TensorTrain:
    """Approximate `matrix`, (in, out), by a TT-matrix.

    shape: ((n_1, .., n_d), (m_1, .., m_d)) with in = prod n_k and out = prod m_k.
    """
    return _to_matrix(matrix, shape, TensorTrain, max_rank, epsilon, dtype, "to_tt_matrix")


def to_tr_matrix(
    matrix: torch.Tensor,
    shape: MatrixShape,
    max_rank: Rank | None = None,
    epsilon: float = 0.0,
    *,
    dtype: torch.dtype | None = None,
) -> TensorRing:
    """Approximate `matrix`, (in, out), by a TR-matrix: `shape` as in `to_tt_matrix`, ranks as in `to_tr_tensor`."""
    return _to_matrix(matrix, shape, TensorRing, max_rank, epsilon, dtype, "to_tr_matrix")


def _to_tensor(
    tensor: torch.Tensor,
    kind: type[Chain],
    max_rank: Rank | None,
    epsilon: float,
    dtype: torch.dtype | None,
    what: str,
) -> Chain:
    if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0 or tensor.numel() == 0:
        shown = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else tensor
        raise ShapeError(f"{what}: got {shown!r}; it must be a tensor with at least one dimension, none of them 0")
    return _decompose(tensor, [(n,) for n in tensor.shape], kind, max_rank, epsilon, dtype, what)


def _to_matrix(
    matrix: torch.Tensor,
    shape: MatrixShape,
    kind: type[Chain],
    max_rank: Rank | None,
    epsilon: float,
    dtype: torch.dtype | None,
    what: str,
) -> Chain:
    if not isinstance(matrix, torch.Tensor) or matrix.dim() != 2:
        shown = f"the matrix has shape {tuple(matrix.shape)}" if isinstance(matrix, torch.Tensor) else repr(matrix)
        raise ShapeError(f"{what}: {shown}; it must have two dimensions")
    rows, columns = check_matrix_shape(shape, *matrix.shape)
    d = len(rows)
    interleaved = [axis for k in range(d) for axis in (k, d + k)]
    tensor = matrix.reshape(*rows, *columns).permute(interleaved)
    return _decompose(tensor, list(zip(rows, columns, strict=True)), kind, max_rank, epsilon, dtype, what)


def _decompose(
    tensor: torch.Tensor,
    modes: list[tuple[int, ...]],
    kind: type[Chain],
    max_rank: Rank | None,
    epsilon: float,
    dtype: torch.dtype | None,
    what: str,
) -> Chain:
    """Decompose a tensor with the axes of all `modes` in order; each core takes one of `modes`."""
    if not tensor.is_floating_point():
        raise ShapeError(f"{what}: the entries are {tensor.dtype}; they must be floating-point")
    if not torch.isfinite(tensor).all():
        raise ShapeError(f"{what}: the tensor of shape {tuple(tensor.shape)} holds NaN or infinity")
    if not 0 <= epsilon < math.inf:
        raise ShapeError(f"{what}: epsilon is {epsilon}; it must be a number of at least 0")
    d = len(modes)
    bounds = check_ranks(UNBOUNDED if max_rank is None else max_rank, d, kind.closed)
    dtype = dtype or tensor.dtype
    with without_autocast(tensor.device):
        small, power = normalised(wide(tensor))
        cores = _successive_svds(small, [math.prod(mode) for mode in modes], kind.closed, bounds, epsilon)
        cores = rejoined(cores, power, dtype)
    return kind([core.reshape(len(core), *mode, -1).to(dtype) for core, mode in zip(cores, modes, strict=True)])


def _successive_svds(
    rest: torch.Tensor, sizes: list[int], closed: bool, bounds: Sequence[int], epsilon: float
) -> list[torch.Tensor]:
    """Return cores (r, size, r'). The squares of the error budgets of all steps sum to (epsilon * norm)^2."""
    d = len(sizes)
    budget = epsilon * torch.linalg.vector_norm(rest.detach()) / math.sqrt(max(d if closed else d - 1, 1))
    cores: list[torch.Tensor] = []
    rank = closing = 1
    for k in range(d - 1):
        unfolding = rest.reshape(rank * sizes[k], -1)
        if closed and k == 0:
            left, rest = TruncatedSVD.apply(unfolding, math.sqrt(2) * budget, bounds[0] * bounds[1])
            closing, rank = _split(left.shape[1], bounds)
            missing = closing * rank - left.shape[1]
            cores.append(pad(left, (0, missing)).reshape(sizes[0], closing, rank).movedim(1, 0))
            rest = pad(rest, (0, 0, 0, missing)).reshape(closing, rank, -1).permute(1, 2, 0)
        else:
            left, rest = TruncatedSVD.apply(unfolding, budget, bounds[k + 1])
            cores.append(left.reshape(rank, sizes[k], -1))
            rank = left.shape[1]
    return [*cores, rest.reshape(rank, sizes[-1], closing)]


def _split(rank: int, bounds: Sequence[int]) -> tuple[int, int]:
    """Return (r_0, r_1) within `bounds`, as equal as possible, whose product is at least `rank`."""
    first = min(math.isqrt(rank), bounds[0])
    second = min(-(-rank // first), bounds[1])
    return -(-rank // second), second
