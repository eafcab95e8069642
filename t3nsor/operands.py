"""What rows, a dense weight, a bias and cores have to be to be multiplied."""

import math

import torch

from t3nsor.cores import autocast_dtype
from t3nsor.errors import ShapeError


def check_operands(x, weight, bias, cores) -> None:
    """Raise ShapeError unless x (.., in), weight (out, in), bias (out,), if there are any, and matrix cores fit."""
    kinds = kinds_of(x, weight, bias, cores)
    check_kinds(autocast_dtype(x.device), *kinds)


def in_autocast_dtype(x: torch.Tensor | None) -> torch.Tensor | None:
    """x as autocast wants it: float64 and integers stay as they are."""
    if x is None or x.dtype == torch.float64 or not x.is_floating_point():
        return x
    return x.to(autocast_dtype(x.device) or x.dtype)


def kinds_of(x, weight, bias, cores) -> list[tuple[torch.Size, torch.dtype, torch.device] | None]:
    """Shape, dtype and device of each; ShapeError unless they are dense tensors, or None for weight and bias."""
    for name, given in (("x", x), ("weight", weight), ("bias", bias)):
        if given is None and name != "x":
            continue
        if not isinstance(given, torch.Tensor):
            raise ShapeError(f"{name} is a {type(given).__name__}; it must be a tensor")
        if given.is_nested:
            raise ShapeError(f"{name} is a nested tensor; it must be dense")
        if given.layout != torch.strided:
            raise ShapeError(f"{name} of shape {tuple(given.shape)} has the layout {given.layout}; it must be dense")
    return [None if t is None else (t.shape, t.dtype, t.device) for t in (x, weight, bias, *cores)]


def check_kinds(autocast: torch.dtype | None, x, weight, bias, *cores) -> None:
    """Raise ShapeError unless operands of these kinds fit; `autocast`: the dtype in which autocast has them, if any."""
    in_features = math.prod([shape[1] for shape, _, _ in cores])
    out_features = math.prod([shape[2] for shape, _, _ in cores])
    x_shape, x_dtype, x_device = x
    if not x_shape or x_shape[-1] != in_features:
        raise ShapeError(
            f"x has shape {tuple(x_shape)}; its last dimension must be {in_features}, for a matrix "
            f"{in_features} -> {out_features} of cores {[tuple(shape) for shape, _, _ in cores]}"
        )
    for name, given, wanted in (("weight", weight, (out_features, in_features)), ("bias", bias, (out_features,))):
        if given is not None and given[0] != wanted:
            matrix = f"a matrix {in_features} -> {out_features}"
            raise ShapeError(f"{name} has shape {tuple(given[0])}; beside {matrix} it must be {wanted}")
    mixed = autocast is not None and x_dtype != torch.float64
    if not x_dtype.is_floating_point:
        raise ShapeError(f"x of shape {tuple(x_shape)} is {x_dtype}; it must be floating-point")
    for name, given in (*(("a core", core) for core in cores), ("weight", weight), ("bias", bias)):
        if given is None:
            continue
        _, dtype, device = given
        same_kind = dtype.is_floating_point and dtype != torch.float64 if mixed else dtype == x_dtype
        if device != x_device or not same_kind:
            raise ShapeError(
                f"x of shape {tuple(x_shape)} is {x_dtype} on {x_device}, {name} {dtype} on {device}; "
                "all need the same floating-point dtype and the same device"
            )
