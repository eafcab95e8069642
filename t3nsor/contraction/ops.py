"""Rows times a tensor train or ring, alone or beside a dense weight."""

import sys
from collections.abc import Sequence

import torch

from t3nsor.autocast import autocast_dtype, in_autocast_dtype, without_autocast
from t3nsor.contraction.autograd import contract_eagerly
from t3nsor.contraction.compiled import contract
from t3nsor.contraction.engine import Contraction, Operands, compose, exported_schedule
from t3nsor.contraction.measuring import contraction_of
from t3nsor.contraction.plans import Plan, check_strategy
from t3nsor.contraction.torch_internals import is_any_autocast, is_exporting, is_tracing
from t3nsor.errors import ShapeError
from t3nsor.tensor_train import CoreChain

MOST_KNOWN = 4096
# The contractions of operands that fitted together, by what they look like: small products take as long as a check.
_KNOWN: dict[tuple | None, Contraction] = {}


def tt_matmul(
    x: torch.Tensor,
    tt: CoreChain,
    strategy: str | Plan = "auto",
    *,
    bias: torch.Tensor | None = None,
    save: str = "fast",
) -> torch.Tensor:
    """Compute x W + bias, with W the matrix of `tt`.

    x: (.., in_features).
    tt: a TensorTrain or TensorRing matrix in_features -> out_features.
    strategy: the contraction order; all give the same values and gradients up to rounding.
        "left_to_right", "right_to_left": core by core.
        "two_factor": the same after merging the cores into two.
        "full": with the dense matrix, built on the fly.
        "hybrid": like "full", but with the gradients of the cores from two factors.
        "auto": the one that was fastest when it was measured on this machine, else the cheapest by the cost model, see
            `explain`.
        "measured": "auto" for a problem that was measured; others are measured once, which takes some seconds, and the
            choice is kept in a file under XDG_CACHE_HOME.
    bias: (out_features,).
    save: what is kept for the backward pass beside x and the cores: "fast": what is computed between the cores where
        it is no larger than x, and whatever else takes time to compute again up to 2^18 numbers, "least": nothing. Up
        to 16 rows all is kept, under torch.compile nothing.

    Returns (.., out_features) in the dtype of x. Cores and bias may be float32 where x is in half precision, so that
    training them loses nothing.
    Raises ShapeError when sizes, dtypes or devices do not fit together.
    """
    return contract_cores(x, _matrix_cores(tt), tt.closed, bias=bias, strategy=strategy, save=save)


def linear_with_branch(
    x: torch.Tensor,
    weight: torch.Tensor,
    tt: CoreChain,
    *,
    scale: float = 1.0,
    bias: torch.Tensor | None = None,
    strategy: str | Plan = "auto",
    save: str = "fast",
) -> torch.Tensor:
    """Compute x weight^T + scale * x W + bias: a dense linear layer with a tensor-train branch beside it.

    x: (.., in_features).
    weight: (out_features, in_features) as in nn.Linear, usually frozen.
    tt: W, a matrix in_features -> out_features.
    scale: a finite number, not trained.
    bias: (out_features,).
    strategy: see `tt_matmul`. Chains run beside one GEMM with `weight`; "full" and "hybrid" are one GEMM with
        weight^T + scale * W, built a few columns at a time and never kept.
    save: see `tt_matmul`.

    Returns (.., out_features).
    Raises ShapeError when sizes, dtypes or devices do not fit together.
    """
    if weight is None:
        raise ShapeError("weight is None; without a dense weight use tt_matmul")
    cores = _matrix_cores(tt)
    return contract_cores(x, cores, tt.closed, weight=weight, bias=bias, scale=scale, strategy=strategy, save=save)


def contract_cores(
    x: torch.Tensor,
    cores: Sequence[torch.Tensor],
    closed: bool,
    *,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    scale: float = 1.0,
    strategy: str | Plan = "auto",
    save: str = "fast",
) -> torch.Tensor:
    """Compute what `tt_matmul`, or with `weight` `linear_with_branch`, does, for cores that form no chain object.

    cores: (r_{k-1}, n_k, m_k, r_k), of a ring if `closed`. They are not checked against each other.
    """
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) <= sys.float_info.max:
        raise ShapeError(f"scale is {scale!r}; it must be a finite number, which is not trained")
    check_strategy(strategy, len(cores), closed, save)
    compiling = torch.compiler.is_compiling()
    plain = not (compiling or is_tracing() or is_any_autocast())
    key = (strategy, save, closed, *map(_look, (x, weight, bias, *cores))) if plain else None
    contraction = _KNOWN.get(key) if plain else None  # a graph would guard every entry
    if contraction is None:
        check_operands(x, weight, bias, cores)
        x = in_autocast_dtype(x)
    bias = bias if bias is None or bias.dtype == x.dtype else bias.to(x.dtype)
    operands = Operands(x, weight, bias, cores, float(scale))
    if compiling and is_exporting():
        shapes = [core.shape for core in cores]
        return compose(exported_schedule(strategy, closed, weight is not None, x.dtype, x.device, *shapes), operands)
    if compiling:
        code = strategy.code if isinstance(strategy, Plan) else strategy
        return contract(x, weight, bias, list(cores), closed, float(scale), code)
    if contraction is None:
        contraction = contraction_of(x, cores, closed, weight is not None, strategy, save)
        if plain and (strategy != "measured" or contraction.is_measured):
            if len(_KNOWN) >= MOST_KNOWN:
                _KNOWN.clear()
            _KNOWN[key] = contraction
    if plain:
        return contract_eagerly(contraction, operands)
    with without_autocast(x.device):
        return contract_eagerly(contraction, operands)


def _look(operand: torch.Tensor | None) -> tuple:
    """What decides whether an operand fits to others, and how it is contracted."""
    if not isinstance(operand, torch.Tensor) or operand.is_nested:
        return (type(operand),)
    return operand.shape, operand.dtype, operand.device, operand.layout


def _matrix_cores(tt: CoreChain) -> list[torch.Tensor]:
    if not isinstance(tt, CoreChain):
        raise ShapeError(f"tt is a {type(tt).__name__}; it must be a TensorTrain or TensorRing")
    cores = tt.cores.forward()
    if cores[0].dim() != 4:
        raise ShapeError(f"tt must be a matrix; {tt!r} is a tensor of shape {tt.shape}")
    return cores


def check_operands(
    x: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, cores: Sequence[torch.Tensor]
) -> None:
    """Raise ShapeError unless these `Operands` fit together; cores and bias may be float32 for x in half precision."""
    in_features = out_features = 1
    for core in cores:
        _, n, m, _ = core.shape
        in_features, out_features = in_features * n, out_features * m
    _check_dense("x", x)
    if x.dim() == 0 or x.shape[-1] != in_features:
        raise ShapeError(
            f"x has shape {tuple(x.shape)}; its last dimension must be {in_features}, for a matrix "
            f"{in_features} -> {out_features} of cores {[tuple(core.shape) for core in cores]}"
        )
    if weight is not None:
        _check_shape("weight", weight, (out_features, in_features))
    if bias is not None:
        _check_shape("bias", bias, (out_features,))
    if not x.is_floating_point():
        raise ShapeError(f"x of shape {tuple(x.shape)} is {x.dtype}; it must be floating-point")
    dtype, device = x.dtype, x.device
    for operand in (*cores, weight, bias):
        if operand is None or (operand.dtype == dtype and operand.device == device):
            continue
        castable = all(t.is_floating_point() and t.dtype != torch.float64 for t in (operand, x))
        kept_wide = operand is not weight and operand.dtype == torch.float32 and dtype.itemsize == 2
        if operand.device != device or not castable or not (kept_wide or autocast_dtype(device) is not None):
            name = "weight" if operand is weight else "bias" if operand is bias else "a core"
            raise ShapeError(
                f"x of shape {tuple(x.shape)} is {dtype} on {device}, {name} {operand.dtype} on {operand.device}; "
                "all need the same floating-point dtype and the same device"
            )


def _check_dense(name: str, operand: torch.Tensor) -> None:
    if not isinstance(operand, torch.Tensor):
        raise ShapeError(f"{name} is a {type(operand).__name__}; it must be a tensor")
    if operand.is_nested:
        raise ShapeError(f"{name} is a nested tensor; it must be dense")
    if operand.layout != torch.strided:
        raise ShapeError(f"{name} of shape {tuple(operand.shape)} has the layout {operand.layout}; it must be dense")


def _check_shape(name: str, operand: torch.Tensor, shape: tuple[int, ...]) -> None:
    _check_dense(name, operand)
    if operand.shape != shape:
        matrix = f"a matrix {shape[-1]} -> {shape[0]}" if len(shape) == 2 else f"{shape[0]} output features"
        raise ShapeError(f"{name} has shape {tuple(operand.shape)}; with {matrix} it must be {shape}")
