"""Arithmetic on lists of cores, for trains and rings alike; a train is a ring whose closing bond is 1.

Addition, products and rounding follow Oseledets 2011 (https://doi.org/10.1137/090752286), extended to any closing bond.
All functions take tensor or matrix cores and are differentiable.
"""

import math
import sys
from collections.abc import Sequence

import torch
from torch.autograd.function import once_differentiable
from torch.nn.functional import pad

from t3nsor.autocast import without_autocast
from t3nsor.cores import close_cores
from t3nsor.scaling import comfortable, exponent, normalised, rejoined, split_number, times_power, wide

Tensors = Sequence[torch.Tensor]
UNBOUNDED = sys.maxsize


def add(left: Tensors, right: Tensors, closed: bool) -> list[torch.Tensor]:
    """Return the cores of the sum: each holds those of both sides as blocks, so the ranks add up."""
    cores = [torch.cat([pad(a, (0, b.shape[-1])), pad(b, (a.shape[-1], 0))]) for a, b in zip(left, right, strict=True)]
    if not closed:
        cores[0] = cores[0].sum(0, keepdim=True)
        cores[-1] = cores[-1].sum(-1, keepdim=True)
    return cores


def scale(cores: Tensors, factor: torch.Tensor | float) -> list[torch.Tensor]:
    """Return the cores of the product with a number: it goes into the first core, or into all where that is too much.

    factor: a number or a tensor without dimensions.
    """
    d, dtype = len(cores), cores[0].dtype
    mantissa, power = split_number(factor, cores[0])
    first = cores[0] * mantissa
    fits = (exponent(wide(first)) + power).abs() <= comfortable(dtype)
    share = torch.where(fits, 0, power.div(d, rounding_mode="floor"))
    scaled = [times_power(wide(core), share) for core in cores[1:]]
    return [core.to(dtype) for core in (times_power(wide(first), power - (d - 1) * share), *scaled)]


def hadamard(left: Tensors, right: Tensors) -> list[torch.Tensor]:
    """Return the cores of the entrywise product: Kronecker products of the slices, so the ranks multiply."""
    products, power = [], torch.zeros((), dtype=torch.int32, device=left[0].device)
    with without_autocast(left[0].device):
        for a, b in zip(left, right, strict=True):
            (a, a_power), (b, b_power) = normalised(wide(a)), normalised(wide(b))
            products.append(torch.einsum("a...b,c...d->ac...bd", a, b).flatten(-2, -1).flatten(0, 1))
            power = power + a_power + b_power
    return [product.to(left[0].dtype) for product in rejoined(products, power, left[0].dtype)]


def dot(left: Tensors, right: Tensors) -> torch.Tensor:
    """Return the sum of all entries of the entrywise product, a tensor without dimensions."""
    return times_power(*_dot(_flat(left), _flat(right))).to(left[0].dtype)


def _dot(a_cores: list[torch.Tensor], b_cores: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (value, e) with `dot` = value * 2^e, for cores (r, n, r')."""
    # A ring can be cut open at any bond; the narrowest is the cheapest.
    widths = [a.shape[0] * b.shape[0] for a, b in zip(a_cores, b_cores, strict=True)]
    start = widths.index(min(widths))
    a_cores, b_cores = _rotated(a_cores, start), _rotated(b_cores, start)
    bonds = a_cores[0].shape[0], b_cores[0].shape[0]
    state = torch.eye(math.prod(bonds), dtype=a_cores[0].dtype, device=a_cores[0].device).unflatten(1, bonds)
    power = torch.zeros((), dtype=torch.int32, device=state.device)
    with without_autocast(state.device):
        for a, b in zip(a_cores, b_cores, strict=True):
            (a, a_power), (b, b_power) = normalised(a), normalised(b)
            state = torch.einsum("sab,anc->sbnc", state, a)
            state, own = normalised(torch.einsum("sbnc,bnd->scd", state, b))
            power = power + a_power + b_power + own
    return state.flatten(1).diagonal().sum(), power


def norm(cores: Tensors, closed: bool) -> torch.Tensor:
    """Return the Frobenius norm.

    For a train by orthogonalisation, to working precision even where terms cancel; for a ring the root of `dot`.
    """
    flat = _flat(cores)
    with torch.no_grad(), without_autocast(flat[0].device):
        value, power = _norm(flat, closed)
    if torch.is_grad_enabled() and any(core.requires_grad for core in flat):
        # Orthogonalisation has no gradient at rank-deficient cores, the square has. `relative` is 0 and carries the
        # derivatives of |x|^2 / value^2; the Taylor series of the root at 1 turns them into the first two of |x|.
        square, square_power = _dot(flat, flat)
        relative = times_power(square, square_power - 2 * power) / torch.where(value > 0, value, 1).square()
        relative = relative - relative.detach()
        value = value * (1 + relative / 2 - relative.square() / 8)
    return times_power(value, power).to(cores[0].dtype)


def _norm(cores: list[torch.Tensor], closed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (value, e) with `norm` = value * 2^e, for cores (r, n, r')."""
    if not closed:
        cores, power = _orthogonalised(cores)
        return torch.linalg.vector_norm(cores[0]), power
    square, power = _dot(cores, cores)
    half = power.div(2, rounding_mode="floor")
    return times_power(square, power - 2 * half).clamp_min(0).sqrt(), half


def round_cores(cores: Tensors, closed: bool, epsilon: float, bounds: tuple[int, ...]) -> list[torch.Tensor]:
    """Return cores of lower rank, at a distance of at most epsilon * norm unless `bounds` (r_0 .. r_d) force more.

    A ring is cut open, with its closing bond as a mode of the first and of the last core, rounded, rotated by one core
    and rounded again, so that every bond is truncated. If E is the error of the open ring, that of the closed one is
    |trace E| <= sqrt(r_0) |E|.
    """
    d, dtype = len(cores), cores[0].dtype
    modes = [core.shape[1:-1] for core in cores]
    flat = _flat(cores)
    passes = 2 if closed else 1
    with without_autocast(flat[0].device):
        size, size_power = _norm([core.detach() for core in flat], closed) if epsilon else (flat[0].new_zeros(()), 0)
        power = torch.zeros((), dtype=torch.int32, device=flat[0].device)
        if d == 1:
            flat = [flat[0].diagonal(dim1=0, dim2=-1).sum(-1).reshape(1, -1, 1)]
        for step in range(passes if d > 1 else 0):
            flat, own = _orthogonalised(_rotated(flat, step))
            power = power + own
            budget = times_power(epsilon * size, size_power - power) / passes
            flat = _truncated(flat, budget / math.sqrt(flat[0].shape[0] * (d - 1)), bounds)
            bounds = (*bounds[1:], bounds[1])
        flat = rejoined(flat, power, dtype)
        if closed and d > 1:
            flat = _rotated(flat, 1 - passes)
    return [
        core.reshape(core.shape[0], *mode, core.shape[-1]).to(dtype) for core, mode in zip(flat, modes, strict=True)
    ]


def gather_rows(cores: Tensors, index: torch.Tensor) -> torch.Tensor:
    """Return the rows `index` (any shape) of the dense matrix, (*index.shape, prod m_k), from the slices they need."""
    rest, slices = index.reshape(-1), []
    for core in reversed(cores):
        rest, digit = rest // core.shape[1], rest % core.shape[1]
        slices.append(core.index_select(1, digit).movedim(1, 0).unsqueeze(2))
    rows = close_cores(slices[::-1])
    return rows.reshape(*index.shape, rows.shape[-1])


class TruncatedSVD(torch.autograd.Function):
    """The best approximation of a matrix as `left @ right`, where the columns of `left` are orthonormal.

    matrix: (m, n) -> left (m, k), right (k, n).
    budget: bound on the error in the Frobenius norm; k is the smallest rank that keeps it.
    bound: bound on k, which takes precedence. Singular values that are zero up to rounding never count.

    The gradient is that of the product: the columns of `left` may rotate within the kept space, so the usual gradient
    of an SVD, infinite where singular values meet, is not needed. It is exact where kept and dropped singular values
    differ; there is no second derivative.
    """

    @staticmethod
    def forward(context, matrix, budget, bound):
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
        # Eight times the rounding error of this SVD: earlier factors of a sweep have been rounded already.
        noise = 8 * torch.finfo(s.dtype).eps * max(matrix.shape) * s[0]
        dropped_norms = s.flip(0).square().cumsum(0).sqrt()
        smallest = s.numel() - int((dropped_norms <= torch.clamp_min(noise, budget)).sum())
        kept = max(1, min(smallest, bound))
        context.kept = kept
        context.save_for_backward(u, s, vh)
        return u[:, :kept].contiguous(), s[:kept, None] * vh[:kept]

    @staticmethod
    @once_differentiable
    def backward(context, grad_left, grad_right):
        (u, s, vh), kept = context.saved_tensors, context.kept
        u_kept, u_dropped, s_kept, s_dropped = u[:, :kept], u[:, kept:], s[:kept], s[kept:]
        grad = u_kept @ grad_right
        # right = left^T matrix, so the gradient of `right` reaches `left` too.
        grad_left = grad_left + u @ (s[:, None] * (vh @ grad_right.T))
        gaps = s_kept.square() - s_dropped.square()[:, None]
        turn = u_dropped.T @ grad_left / torch.where(gaps > 0, gaps, math.inf)
        outside = (grad_left - u @ (u.T @ grad_left)) / torch.where(s_kept > 0, s_kept, math.inf)
        grad = grad + (u_dropped @ (turn * s_kept) + outside) @ vh[:kept]
        return grad + u_kept @ (turn * s_dropped[:, None]).T @ vh[kept:], None, None


def _flat(cores: Tensors) -> list[torch.Tensor]:
    """Cores (r, modes, r'), those of half precision in float32."""
    return [wide(core).flatten(1, -2) for core in cores]


def _rotated(cores: Tensors, start: int) -> list[torch.Tensor]:
    return [*cores[start:], *cores[:start]]


def _orthogonalised(cores: Tensors) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return (cores, e): the same open chain as the cores times 2^e.

    All cores but the first have orthonormal rows in their unfoldings (r, modes * r').
    """
    cores = list(cores)
    cores[-1], power = normalised(cores[-1])
    for k in range(len(cores) - 1, 0, -1):
        q, r = torch.linalg.qr(cores[k].flatten(1).T)
        cores[k] = q.T.reshape(-1, *cores[k].shape[1:])
        before, own = normalised(cores[k - 1])
        cores[k - 1], product = normalised(before @ r.T)
        power = power + own + product
    return cores, power


def _truncated(cores: Tensors, budget: torch.Tensor | float, bounds: Sequence[int]) -> list[torch.Tensor]:
    """An orthogonalised open chain with its inner ranks cut from left to right, each with an error within `budget`."""
    cores = list(cores)
    for k in range(len(cores) - 1):
        left, rest = TruncatedSVD.apply(cores[k].flatten(0, 1), budget, bounds[k + 1])
        cores[k] = left.reshape(*cores[k].shape[:2], -1)
        cores[k + 1] = torch.tensordot(rest, cores[k + 1], dims=1)
    return cores
