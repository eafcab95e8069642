"""Rows times a tensor train or ring, alone or beside a dense weight."""

import math
import sys
from functools import lru_cache

import torch

from t3nsor.autocast import autocast_dtype, in_autocast_dtype
from t3nsor.contraction.autograd import contract, contract_eagerly
from t3nsor.contraction.engine import Problem, problem_of_shapes
from t3nsor.contraction.plans import Plan, check_strategy
from t3nsor.errors import ShapeError
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
    if weight is None:
        raise ShapeError("weight is None; without a dense weight there is tt_matmul")
    return _contract(x, weight, bias, tt, scale, strategy)


def _contract(x, weight, bias, tt, scale, strategy):
    if not isinstance(tt, CoreChain):
        raise ShapeError(f"rows are multiplied by a TensorTrain or TensorRing, not by a {type(tt).__name__}")
    if not tt.is_matrix:
        raise ShapeError(f"rows can be multiplied by a matrix; {tt!r} is a tensor of shape {tt.shape}")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) <= sys.float_info.max:
        raise ShapeError(f"scale is {scale!r}; it must be a finite number, which is not trained")
    cores = list(tt.cores)
    check_strategy(strategy, len(cores), tt.closed)
    if torch.compiler.is_compiling():
        check_operands(x, weight, bias, cores)
        code = strategy.code if isinstance(strategy, Plan) else strategy
        return contract(in_autocast_dtype(x), weight, in_autocast_dtype(bias), cores, tt.closed, float(scale), code)
    kinds = kinds_of(x, weight, bias, cores)
    problem = _problem(strategy, tt.closed, autocast := autocast_dtype(x.device), *kinds)
    if autocast is not None:
        x, bias = in_autocast_dtype(x), in_autocast_dtype(bias)
    return contract_eagerly(problem, float(scale), x, weight, bias, *cores)


@lru_cache(maxsize=4096)
def _problem(strategy: str | Plan, closed: bool, autocast: torch.dtype | None, x, weight, bias, *cores) -> Problem:
    """The problem of operands of these kinds, which are checked."""
    check_kinds(autocast, x, weight, bias, *cores)
    shape, dtype, device = x
    if autocast is not None and dtype != torch.float64:
        dtype = autocast
    core_shapes = [shape for shape, _, _ in cores]
    return problem_of_shapes(strategy, closed, weight is not None, dtype, device, shape, *core_shapes)


def check_operands(x, weight, bias, cores) -> None:
    """Raise ShapeError unless x (.., in), weight (out, in), bias (out,), if there are any, and matrix cores fit."""
    kinds = kinds_of(x, weight, bias, cores)
    check_kinds(autocast_dtype(x.device), *kinds)


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
