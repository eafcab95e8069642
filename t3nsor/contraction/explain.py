"""Why a layer is contracted the way it is."""

import torch
from torch import nn

from t3nsor.contraction.cost_model import choose, cost
from t3nsor.contraction.engine import counted
from t3nsor.contraction.plans import Plan, Sizes, candidates
from t3nsor.errors import ShapeError
from t3nsor.shapes import max_rank
from t3nsor.tensor_train import CoreChain


def explain(layer: nn.Module, rows: int, *, dtype: torch.dtype | None = None, beside: bool = False) -> None:
    """Print the plans for `rows` rows of x, what the cost model predicts for each, and the choice.

    layer: a TTLinear, a TRLinear, or a matrix TensorTrain or TensorRing. dtype: of x, by default that of the cores.
    beside: whether the branch stands beside a dense weight, see `linear_with_branch`.
    The predictions rank plans; as times they hold for the machine on which the rates were measured.
    """
    chain = layer if isinstance(layer, CoreChain) else getattr(layer, "weight", None)
    if not isinstance(chain, CoreChain) or not chain.is_matrix:
        raise ShapeError(f"explain takes a layer with a tensor-train matrix, or such a matrix; not {layer!r}")
    if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
        raise ShapeError(f"rows is {rows!r}; it must be a whole number of at least 1")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ShapeError(f"dtype is {dtype!r}; it must be a floating-point torch.dtype, or None for that of the cores")
    if getattr(layer, "cores_nonlinearity", None) is not None:
        print(f"{chain}\nwith an activation between the cores there is one way only: left to right, core by core")
        return
    (inputs, outputs), kind = chain.raw_shape, dtype or chain.dtype
    name, device = str(kind).removeprefix("torch."), chain.device.type
    sizes = Sizes(inputs, outputs, chain.ranks, chain.closed, counted(rows), name, device, beside)
    ranks = chain.ranks[:-1] if chain.closed else chain.ranks[1:-1]
    print(chain)
    print(f"matrix rank at most {max_rank((inputs, outputs), ranks, chain.closed)}")
    strategy = getattr(layer, "strategy", "auto")
    for backward in (False, True):
        _print_plans(sizes, rows, strategy, backward)


def chosen_plans(chain: CoreChain, rows: int, *, beside: bool = False, device: str | None = None) -> tuple[Plan, Plan]:
    """The plans, forward and backward, by which the cost model would multiply `rows` rows by a matrix.

    beside: whether it stands beside a dense weight. device: "cpu" or "cuda", by default that of the cores.
    """
    (inputs, outputs), kind = chain.raw_shape, str(chain.dtype).removeprefix("torch.")
    where = device or chain.device.type
    sizes = Sizes(inputs, outputs, chain.ranks, chain.closed, counted(rows), kind, where, beside)
    return choose(sizes, "auto", False), choose(sizes, "auto", True)


def _print_plans(sizes: Sizes, rows: int, strategy, backward: bool) -> None:
    chosen = choose(sizes, strategy, backward)
    where = " beside a dense weight" if sizes.beside else ""
    title = "backward" if backward else "forward"
    shown = f"{rows} rows" if rows == sizes.rows else f"{rows} rows, counted as {sizes.rows},"
    print(f"\n{title}, {shown} of {sizes.dtype} on {sizes.device}{where}, strategy {strategy}")
    plans = dict.fromkeys([*candidates(sizes, "auto", backward), chosen])
    for plan in sorted(plans, key=lambda plan: cost(sizes, plan, backward)):
        mark = "->" if plan == chosen else "  "
        print(f"{mark} {cost(sizes, plan, backward) * 1e3:9.3f} ms  {plan}")
