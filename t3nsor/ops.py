"""Rows times a tensor train or ring, alone or beside a dense weight."""

import sys
from functools import lru_cache

import torch

from t3nsor.autograd import contract, contract_eagerly
from t3nsor.cores import autocast_dtype
from t3nsor.errors import ShapeError
from t3nsor.operands import check_kinds, check_operands, in_autocast_dtype, kinds_of
from t3nsor.plans import Plan, check_strategy
from t3nsor.recipes import Problem, problem_of_shapes
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
