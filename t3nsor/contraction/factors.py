"""From cores to what a plan multiplies by, and from the gradients of that back to the cores.

A plan merges runs of adjacent cores into factors (left, n, m, right). Two factors of a ring are a train over both the
bonds between them, of rank r_0 * r_k.
"""

import torch

from t3nsor.contraction.plans import Plan, Sizes
from t3nsor.cores import close_cores, merge_cores

LEFT_TO_RIGHT, RIGHT_TO_LEFT = (2, 3, 0, 1), (0, 2, 1, 3)  # axes of a factor as a matrix (outer, inner) of a step


def parts_of(cores, plan: Plan, closed: bool, scale: float, dtype: torch.dtype) -> list[torch.Tensor]:
    """What `plan` multiplies rows of `dtype` by, with `scale` in the last core; differentiable in the cores.

    "chain": for each step, in order, the matrix (outer, inner), either side a rank and a mode. Else two
    factors (n1, m1, r) and (r, n2, m2).
    """
    factors = _factors(_scaled(cores, scale), plan.groups, closed)
    if plan.kind != "chain":
        first, second = factors
        return [_cast(first[0], dtype), _cast(second[..., 0], dtype)]
    axes = _axes(plan)
    turned = [_cast(factor.permute(axes), dtype) for factor in factors]
    matrices = [factor.reshape(factor.shape[0] * factor.shape[1], -1) for factor in turned]
    return matrices[::-1] if plan.right_to_left else matrices


def core_gradients(gradients, cores, plan: Plan, sizes: Sizes, scale: float) -> list[torch.Tensor]:
    """The gradient of each core from those of the parts that `parts_of` made of the cores."""
    if plan.kind != "chain":
        first, second = gradients
        of_factors = [first[None], second[..., None]]
    else:
        gradients = gradients[::-1] if plan.right_to_left else gradients
        axes = _axes(plan)
        back = [axes.index(axis) for axis in range(4)]
        of_factors = [
            gradient.reshape([shape[axis] for axis in axes]).permute(back)
            for gradient, shape in zip(gradients, sizes.factor_shapes(plan.groups), strict=True)
        ]
    found = _merged_to_cores(of_factors, _scaled(cores, scale), plan.groups, sizes.closed)
    return _scaled(found, scale)


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In `dtype`; a copy that has to be made is contiguous."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype, memory_format=torch.contiguous_format)


def _scaled(cores, scale: float) -> list[torch.Tensor]:
    return cores if scale == 1.0 else [*cores[:-1], cores[-1] * scale]


def _axes(plan: Plan) -> tuple[int, ...]:
    return RIGHT_TO_LEFT if plan.right_to_left else LEFT_TO_RIGHT


def _wide(cores) -> list[torch.Tensor]:
    """The cores in float32 or wider, in which they are multiplied with each other."""
    return [core.float() if core.dtype.itemsize == 2 else core for core in cores]


def _runs(cores, groups: tuple[int, ...]) -> list:
    bounds = [sum(groups[:k]) for k in range(len(groups) + 1)]
    return [cores[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


def _factors(cores, groups: tuple[int, ...], closed: bool) -> list[torch.Tensor]:
    if len(groups) == 1:
        return [close_cores(_wide(cores))[None, ..., None]]
    if len(groups) == len(cores) and not closed:
        return cores
    # A product of two cores is rounded once in any case; of more, each product would be.
    factors = [merge_cores(run if len(run) <= 2 else _wide(run)) for run in _runs(cores, groups)]
    if not closed:
        return factors
    first, last = factors
    a, n, m, b = first.shape
    return [
        first.permute(1, 2, 0, 3).reshape(1, n, m, a * b),
        last.permute(3, 0, 1, 2).reshape(a * b, *last.shape[1:3], 1),
    ]


def _merged_to_cores(gradients, cores, groups: tuple[int, ...], closed: bool) -> list[torch.Tensor]:
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
    runs = _runs(cores, groups)
    return [g for run, merged in zip(runs, gradients, strict=True) for g in _merge_gradients(run, merged)]


def _merge_gradients(cores, gradient: torch.Tensor) -> list[torch.Tensor]:
    """The adjoint of `merge_cores`, which multiplies halves in the same way."""
    if len(cores) == 1:
        return [gradient]
    half = len(cores) // 2
    if len(cores) > 2 or cores[0].dtype != gradient.dtype:
        cores, (gradient,) = _wide(cores), _wide([gradient])
    left, right = merge_cores(cores[:half]), merge_cores(cores[half:])
    (a, n, m, r), (_, p, q, b) = left.shape, right.shape
    flat = gradient.reshape(a, n, p, m, q, b).transpose(2, 3).reshape(a * n * m, p * q * b)
    of_left, of_right = flat @ right.reshape(r, -1).t(), left.reshape(-1, r).t() @ flat
    return [
        *_merge_gradients(cores[:half], of_left.view(left.shape)),
        *_merge_gradients(cores[half:], of_right.view(right.shape)),
    ]
