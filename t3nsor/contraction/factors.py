"""From cores to what a plan multiplies by, and from the gradients of that back to the cores.

A plan merges groups of adjacent cores into factors (left, n, m, right). The two factors of a ring form a train: both
bonds between them become one of rank r_0 * r_k.
"""

from collections.abc import Sequence

import torch

from t3nsor.contraction.plans import ContractionSpec, Plan
from t3nsor.cores import close_cores, merge_cores


def plan_factors(
    cores: Sequence[torch.Tensor], plan: Plan, closed: bool, scale: float, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Return what `plan` multiplies rows of `dtype` by, with `scale` in the last core; differentiable in the cores.

    For a "chain" the matrix (inner, outer) of each step, in order, either side a rank and a mode; for the other kinds
    two factors (n1, m1, r) and (r, n2, m2).
    """
    factors = _factors(_scaled(cores, scale), plan.groups, closed)
    if plan.kind != "chain":
        first, second = factors
        return [_cast(first[0], dtype), _cast(second[..., 0], dtype)]
    if plan.right_to_left:
        # The last rank, 1, goes first: its gradient is then laid out as DistributedDataParallel expects.
        factors = [f.squeeze(-1).permute(1, 0, 2) if f.shape[-1] == 1 else f.permute(1, 3, 0, 2) for f in factors]
        return [_cast(f, dtype).flatten(0, -3).flatten(1) for f in factors[::-1]]
    return [_cast(factor, dtype).reshape(factor.shape[0] * factor.shape[1], -1) for factor in factors]


def dense_matrix(cores: Sequence[torch.Tensor], scale: float, dtype: torch.dtype) -> torch.Tensor:
    """scale * W, (in, out), differentiable."""
    cores = cores if len(cores) <= 2 else _wide(cores)
    return _cast(close_cores(_scaled(cores, scale)), dtype)


def core_gradients(
    gradients: Sequence[torch.Tensor], cores: Sequence[torch.Tensor], plan: Plan, spec: ContractionSpec, scale: float
) -> list[torch.Tensor]:
    """Return the gradient of each core from those of what `plan_factors` made of the cores."""
    if plan.kind != "chain":
        first, second = gradients
        d_factors = [first[None], second[..., None]]
    else:
        shapes = spec.factor_shapes(plan.groups)
        if plan.right_to_left:
            turned = [(n, right, left, m) for left, n, m, right in shapes]
            pairs = zip(gradients[::-1], turned, strict=True)
            d_factors = [gradient.reshape(shape).permute(2, 0, 3, 1) for gradient, shape in pairs]
        else:
            d_factors = [gradient.reshape(shape) for gradient, shape in zip(gradients, shapes, strict=True)]
    d_cores = _split_gradients(d_factors, _scaled(cores, scale), plan.groups, spec.closed)
    return _scaled(d_cores, scale)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`tensor` in `dtype`; where that takes a copy, a contiguous one."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype, memory_format=torch.contiguous_format)


def _scaled(cores: Sequence[torch.Tensor], scale: float) -> list[torch.Tensor]:
    return list(cores) if scale == 1.0 else [*cores[:-1], cores[-1] * scale]


def _wide(cores: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The cores in float32 or wider, the precision in which more than two of them are multiplied."""
    return [core.float() if core.dtype.itemsize == 2 else core for core in cores]


def _grouped(cores: Sequence[torch.Tensor], groups: tuple[int, ...]) -> list[Sequence[torch.Tensor]]:
    bounds = [sum(groups[:k]) for k in range(len(groups) + 1)]
    return [cores[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _factors(cores: Sequence[torch.Tensor], groups: tuple[int, ...], closed: bool) -> Sequence[torch.Tensor]:
    """Cores of one factor (1, n, m, 1), or of several (left, n, m, right), one for each group."""
    if len(groups) == 1:
        return [close_cores(_wide(cores))[None, ..., None]]
    if len(groups) == len(cores) and not closed:
        return cores
    # The product of two cores is rounded once in any case; with more, every product would be.
    factors = [merge_cores(group if len(group) <= 2 else _wide(group)) for group in _grouped(cores, groups)]
    if not closed:
        return factors
    first, last = factors
    a, n, m, b = first.shape
    return [
        first.permute(1, 2, 0, 3).reshape(1, n, m, a * b),
        last.permute(3, 0, 1, 2).reshape(a * b, *last.shape[1:3], 1),
    ]


def _split_gradients(
    gradients: Sequence[torch.Tensor], cores: Sequence[torch.Tensor], groups: tuple[int, ...], closed: bool
) -> Sequence[torch.Tensor]:
    """The gradients of the cores from those of the factors that `_factors` merged them into."""
    if closed and len(groups) == 1:
        (gradient,), r = gradients, cores[0].shape[0]
        eye = torch.eye(r, dtype=gradient.dtype, device=gradient.device)
        return [eye[:, None, None, :] * gradient]
    if closed:
        first, last = gradients
        (_, n, m, _), (_, p, q, _) = first.shape, last.shape
        a, b = cores[0].shape[0], cores[groups[0] - 1].shape[-1]
        gradients = [first.reshape(n, m, a, b).permute(2, 0, 1, 3), last.reshape(a, b, p, q).permute(1, 2, 3, 0)]
    elif len(groups) == len(cores):
        return gradients
    pairs = zip(_grouped(cores, groups), gradients, strict=True)
    return [gradient for group, merged in pairs for gradient in _merge_gradients(group, merged)]


def _merge_gradients(cores: Sequence[torch.Tensor], gradient: torch.Tensor) -> list[torch.Tensor]:
    """The adjoint of `merge_cores`, with the same split into halves."""
    if len(cores) == 1:
        return [gradient]
    half = len(cores) // 2
    if len(cores) > 2 or cores[0].dtype != gradient.dtype:
        cores, (gradient,) = _wide(cores), _wide([gradient])
    left, right = merge_cores(cores[:half]), merge_cores(cores[half:])
    (a, n, m, r), (_, p, q, b) = left.shape, right.shape
    flat = gradient.reshape(a, n, p, m, q, b).transpose(2, 3).reshape(a * n * m, p * q * b)
    d_left, d_right = flat @ right.reshape(r, -1).t(), left.reshape(-1, r).t() @ flat
    return [
        *_merge_gradients(cores[:half], d_left.view(left.shape)),
        *_merge_gradients(cores[half:], d_right.view(right.shape)),
    ]
