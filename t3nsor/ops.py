"""Rows times a tensor train or ring, alone or beside a dense weight."""

import math
from functools import lru_cache

import torch

from t3nsor.autograd import contract, contract_eagerly
from t3nsor.cores import autocast_is_on
from t3nsor.engine import Settings
from t3nsor.errors import ShapeError
from t3nsor.plans import Plan, check_strategy
from t3nsor.tensor_train import CoreChain


def tt_matmul(x: torch.Tensor, tt: CoreChain, strategy: str | Plan = "auto", *, bias: torch.Tensor | None = None):
    """x W + bias, W the matrix that `tt` stands for.

    x: (.., in_features); tt: a TensorTrain or TensorRing matrix; bias: (out_features,). Returns (.., out_features).
    strategy: how to contract; every strategy gives the same values and gradients up to rounding.
        "left_to_right", "right_to_left": one core after the other; "pairs": adjacent cores merged two by two first;
        "two_factor": merged to two; "full": the dense matrix, built on the fly; "hybrid": the same, but the gradients
        of the cores from the two factors; "auto": the cheapest by the cost model, see `explain`.
    Saves its arguments for the backward pass, x and the cores, and nothing that it makes of them.
    Raises ShapeError when sizes, dtypes or devices do not fit together.
    """
    return _contract(x, None, bias, tt, 1.0, strategy)


def linear_with_branch(
    x: torch.Tensor,
    weight: torch.Tensor,
    tt: CoreChain,
    *,
    scale: float = 1.0,
    bias: torch.Tensor | None = None,
    strategy: str | Plan = "auto",
):
    """x weight^T + scale * x W + bias: a dense linear layer with a tensor-train branch beside it.

    x: (.., in_features); weight: (out_features, in_features), as of nn.Linear, usually frozen; tt: W, a matrix
    in_features -> out_features; bias: (out_features,). Returns (.., out_features).
    strategy: as for `tt_matmul`; the chains run beside one GEMM with `weight`, "full" and "hybrid" are one GEMM with
    weight^T + scale * W, built a few columns at a time. Neither keeps that matrix, and nothing of the size of x
    or y is saved but x.
    """
    return _contract(x, weight, bias, tt, scale, strategy)


def _contract(x, weight, bias, tt, scale, strategy):
    if not isinstance(tt, CoreChain):
        raise ShapeError(f"rows are multiplied by a TensorTrain or TensorRing, not by a {type(tt).__name__}")
    if not tt.is_matrix:
        raise ShapeError(f"rows can be multiplied by a matrix; {tt!r} is a tensor of shape {tt.shape}")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
        raise ShapeError(f"scale is {scale!r}; it must be a finite number, which is not trained")
    cores = list(tt.cores)
    check_strategy(strategy, len(cores), tt.closed)
    check_operands(x, weight, bias, cores)
    x, bias = in_autocast_dtype(x), None if bias is None else in_autocast_dtype(bias)
    if torch.compiler.is_compiling():
        code = strategy.code if isinstance(strategy, Plan) else strategy
        return contract(x, weight, bias, cores, tt.closed, float(scale), code)
    return contract_eagerly(Settings(tt.closed, scale, strategy), x, weight, bias, *cores)


def in_autocast_dtype(x: torch.Tensor) -> torch.Tensor:
    """x as autocast wants it: float64 and integers stay as they are."""
    if not autocast_is_on(x.device) or x.dtype == torch.float64 or not x.is_floating_point():
        return x
    return x.to(torch.get_autocast_dtype(x.device.type))


def check_operands(x, weight, bias, cores) -> None:
    """Raise ShapeError unless x (.., in), weight (out, in), bias (out,), if there are any, and matrix cores fit."""
    for name, given in (("x", x), ("weight", weight), ("bias", bias)):
        if not isinstance(given, torch.Tensor) and (given is not None or name == "x"):
            raise ShapeError(f"{name} is a {type(given).__name__}; it must be a tensor")
    if x.layout != torch.strided:
        raise ShapeError(f"x of shape {tuple(x.shape)} has the layout {x.layout}; it must be dense")
    kinds = [None if t is None else (t.shape, t.dtype, t.device) for t in (x, weight, bias, *cores)]
    check = _check_kinds.__wrapped__ if torch.compiler.is_compiling() else _check_kinds
    check(autocast_is_on(x.device), *kinds)


@lru_cache(maxsize=4096)
def _check_kinds(autocast: bool, x, weight, bias, *cores) -> None:
    """Each argument but the first is a shape, a dtype and a device, or None."""
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
    mixed = autocast and x_dtype != torch.float64
    for name, given in (("x", x), *(("a core", core) for core in cores), ("weight", weight), ("bias", bias)):
        if given is None:
            continue
        _, dtype, device = given
        same_kind = dtype.is_floating_point and dtype != torch.float64 if mixed else dtype == x_dtype
        if device != x_device or not same_kind or not dtype.is_floating_point:
            raise ShapeError(
                f"x of shape {tuple(x_shape)} is {x_dtype} on {x_device}, {name} {dtype} on {device}; "
                "all need the same floating-point dtype and the same device"
            )
