"""Show the plans for a layer, their predicted cost, and the choice."""

import torch
from torch import nn

from t3nsor.contraction.cost_model import choose_plan, cost, first_plan, state_size
from t3nsor.contraction.engine import Training
from t3nsor.contraction.plans import ContractionSpec, Plan, candidates, rounded_row_count
from t3nsor.errors import ShapeError
from t3nsor.machine import machine
from t3nsor.shapes import max_rank
from t3nsor.tensor_train import CoreChain


def explain(layer: nn.Module, rows: int, *, dtype: torch.dtype | None = None, beside: bool = False) -> None:
    """Print the plans for `rows` rows of x, the time that the cost model predicts for each, and the choice.

    layer: a TTLinear, a TRLinear, or a matrix TensorTrain or TensorRing.
    rows: at least 1.
    dtype: of x; None: that of the cores.
    beside: True for a branch beside a dense weight, see `linear_with_branch`.

    Says where the choice comes from: from a measurement of this problem, from rates that `python -m t3nsor.calibrate`
    fitted on this machine, or from rates assumed for a generic one, which only rank the plans.
    Raises ShapeError for other arguments.
    """
    chain = layer if isinstance(layer, CoreChain) else getattr(layer, "weight", None)
    if not isinstance(chain, CoreChain) or not chain.is_matrix:
        raise ShapeError(f"explain takes a layer with a tensor-train matrix, or such a matrix; not {layer!r}")
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ShapeError(f"rows is {rows!r}; it must be a whole number of at least 1")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ShapeError(f"dtype is {dtype!r}; it must be a floating-point torch.dtype, or None for that of the cores")
    if getattr(layer, "cores_nonlinearity", None) is not None:
        print(f"{chain}\nwith an activation between the cores there is only one order: left to right, core by core")
        return
    ranks = chain.ranks[:-1] if chain.closed else chain.ranks[1:-1]
    print(chain)
    print(f"matrix rank at most {max_rank(chain.raw_shape, ranks, chain.closed)}")
    strategy, save = getattr(layer, "strategy", "auto"), getattr(layer, "save", "fast")
    spec = _spec(chain, rows, dtype or chain.dtype, chain.device.type, beside, save)
    for backward in (False, True):
        _print_plans(spec, rows, strategy, backward)
    print(f"\nkept for the backward pass: {_kept(spec, strategy)}")


def chosen_plans(chain: CoreChain, rows: int, *, beside: bool = False, device: str | None = None) -> tuple[Plan, Plan]:
    """Return the plans, forward and backward, that the cost model chooses to multiply `rows` rows by a matrix.

    chain: the matrix.
    rows: of x.
    beside: True for a branch beside a dense weight.
    device: "cpu" or "cuda"; None: that of the cores.
    """
    spec = _spec(chain, rows, chain.dtype, device or chain.device.type, beside)
    return choose_plan(spec, "auto", False), choose_plan(spec, "auto", True)


def _spec(
    chain: CoreChain, rows: int, dtype: torch.dtype, device: str, beside: bool, save: str = "fast"
) -> ContractionSpec:
    inputs, outputs = chain.raw_shape
    name, rows = str(dtype).removeprefix("torch."), rounded_row_count(rows)
    return ContractionSpec(inputs, outputs, chain.ranks, chain.closed, rows, name, device, beside, save=save)


def _print_plans(spec: ContractionSpec, rows: int, strategy: str | Plan, backward: bool) -> None:
    chosen, known = choose_plan(spec, strategy, backward), machine(spec.device)
    where = " beside a dense weight" if spec.with_dense_weight else ""
    title = "forward and backward" if backward else "forward"
    shown = f"{rows} rows" if rows == spec.rows else f"{rows} rows, counted as {spec.rows},"
    print(f"\n{title}, {shown} of {spec.dtype} on {spec.device}{where}, strategy {strategy}")
    plans = dict.fromkeys([*candidates(spec, "auto", backward), chosen])
    for plan in sorted(plans, key=lambda plan: cost(spec, plan, backward)):
        measured = ", the fastest when measured" if known.choices.get(spec.key(backward)) == plan.code else ""
        mark = "->" if plan == chosen else "  "
        print(f"{mark} {cost(spec, plan, backward) * 1e3:9.3f} ms  {plan}{measured}")
    print(f"   predicted at {known.source(spec.dtype)}")


def _kept(spec: ContractionSpec, strategy: str | Plan) -> str:
    plan = choose_plan(spec, strategy, backward=True)
    training = Training(spec, plan, first_plan(spec, plan, strategy))
    if training.composes:
        return "what autograd keeps, which is little here, and the fastest"
    between = f", and {state_size(spec, plan) / spec.in_features:.2f} of x between them" if training.keeps else ""
    return f"x and the cores{between} (save: {spec.save})"
