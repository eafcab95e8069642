"""Values and gradients of x weight^T + scale * x W + bias, with W given by its cores, by the plans of the cost model.

Nothing here knows of autograd: tensors in, tensors out. `compose` is the same function in differentiable operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch.nn import functional

from t3nsor.contraction.chain import Chain, compose_chain
from t3nsor.contraction.cost_model import (
    choose_plan,
    keeps_states,
    modes_per_block,
    rows_per_block,
    state_size,
    steps_of,
)
from t3nsor.contraction.factors import core_gradients, dense_matrix, plan_factors
from t3nsor.contraction.full import FullMatrix
from t3nsor.contraction.paired import FactorPair
from t3nsor.contraction.plans import ContractionSpec, Plan, rounded_row_count

LITTLE = 2**17  # numbers


@dataclass(frozen=True)
class Schedule:
    """A plan with its block sizes, for operands of one spec.

    spec: what to contract.
    plan: in which order.
    chain: the steps of a chain.
    rows_per_block: rows that a pair handles at once.
    modes_per_block: output modes of a full matrix that are built at once.
    """

    spec: ContractionSpec
    plan: Plan
    chain: Chain
    rows_per_block: int
    modes_per_block: int

    def pair(self, factors: Sequence[torch.Tensor]) -> FactorPair:
        first, second = factors
        return FactorPair(first, second, self.rows_per_block, exchanged=not self.plan.right_to_left)

    def full(self, factors: Sequence[torch.Tensor], weight: torch.Tensor | None) -> FullMatrix:
        first, second = factors
        return FullMatrix(first, second, weight, self.modes_per_block)


@dataclass(frozen=True)
class Training:
    """The schedules of both passes, for a set of gradients.

    keeps: True if the states between the steps, which are the same in both passes, are kept for the second.
    composes: True if autograd's own operations, which are the cheapest to call, keep little for the backward pass.
    """

    forward: Schedule
    backward: Schedule
    keeps: bool
    composes: bool


class Contraction:
    """The schedules for operands of one spec: for the values alone, and for each set of gradients asked for."""

    def __init__(self, spec: ContractionSpec, strategy: str | Plan):
        self.spec, self.strategy = spec, strategy
        self.is_measured = False
        self.plan_again()

    def plan_again(self) -> None:
        """Choose the plans, by what is known of the machine now."""
        self.forward = schedule_of(self.spec, choose_plan(self.spec, self.strategy))
        self._training: dict[tuple[bool, bool], Training] = {}

    def training(self, x_gradient: bool, core_gradients: bool) -> Training:
        """Return the schedules for the gradients of x, of the cores, or of both."""
        wanted = x_gradient, core_gradients
        if wanted not in self._training:
            spec = replace(self.spec, x_gradient=x_gradient, core_gradients=core_gradients)
            plan = choose_plan(spec, self.strategy, backward=True)
            keeps = keeps_states(spec, plan)
            backward = schedule_of(spec, plan)
            same = keeps or (spec.few_rows and plan.kind == "chain")
            forward = backward if same else self.forward
            self._training[wanted] = Training(forward, backward, keeps, _composes(forward))
        return self._training[wanted]


def _composes(forward: Schedule) -> bool:
    spec, plan = forward.spec, forward.plan
    if spec.few_rows:
        return True
    kept = spec.rows * (spec.in_features + state_size(spec, plan))
    if plan.kind == "full":
        kept = 4 * spec.in_features * spec.out_features
    return spec.save == "fast" and kept <= LITTLE


def contraction_for(
    x: torch.Tensor,
    cores: Sequence[torch.Tensor],
    closed: bool,
    with_dense_weight: bool,
    strategy: str | Plan = "auto",
    save: str = "fast",
) -> Contraction:
    """Return the contraction of x (.., in) with the cores of a train or a ring, alone or beside a dense weight."""
    if torch.jit.is_tracing():  # sizes are tensors there
        rows, shapes = int(x.numel()) // int(x.shape[-1]), [torch.Size(map(int, core.shape)) for core in cores]
    else:
        rows, shapes = x.numel() // x.shape[-1], [core.shape for core in cores]
    rows = rounded_row_count(rows)
    return _chosen_contraction(strategy, save, closed, with_dense_weight, rows, x.dtype, x.device, *shapes)


@lru_cache(maxsize=4096)
def _chosen_contraction(
    strategy: str | Plan,
    save: str,
    closed: bool,
    with_dense_weight: bool,
    rows: int,
    dtype: torch.dtype,
    device: torch.device,
    *core_shapes: torch.Size,
) -> Contraction:
    """The contraction chosen for operands of these shapes and dtypes. The engine's memo of its choices."""
    inputs, outputs = tuple(shape[1] for shape in core_shapes), tuple(shape[2] for shape in core_shapes)
    ranks = (*(shape[0] for shape in core_shapes), core_shapes[-1][-1])
    name = str(dtype).removeprefix("torch.")
    spec = ContractionSpec(inputs, outputs, ranks, closed, rows, name, device.type, with_dense_weight, save=save)
    return Contraction(spec, strategy)


def schedule_of(spec: ContractionSpec, plan: Plan) -> Schedule:
    """The plan with its block sizes."""
    modes = modes_per_block(spec, plan) if plan.kind in ("full", "hybrid") else 0
    rows = rows_per_block(spec, plan)
    return Schedule(spec, plan, Chain(steps_of(spec, plan), rows), rows, modes)


def values(
    schedule: Schedule,
    scale: float,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    *cores: torch.Tensor,
    keep: bool = False,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """x (.., in) -> (.., out), and if `keep` the states between the steps of a chain.

    weight: (out, in) or None.
    bias: (out,) or None.
    """
    out_features = schedule.spec.out_features
    result = x.new_empty(*x.shape[:-1], out_features)  # returned itself, not as a view: users may write into it
    rows, y = x.reshape(-1, x.shape[-1]).contiguous(), result.view(-1, out_features)
    factors = plan_factors(cores, schedule.plan, schedule.spec.closed, scale, x.dtype)
    if schedule.plan.kind == "full":
        schedule.full(factors, weight).forward(rows, y, bias)
        return result, []
    if weight is not None:
        dense = weight.to(x.dtype).t()
        torch.mm(rows, dense, out=y) if bias is None else torch.addmm(bias, rows, dense, out=y)
    between = schedule.chain.forward(factors, rows, y, bias if weight is None else y)
    return result, between if keep else []


def gradients(
    schedule: Schedule,
    scale: float,
    needed: Sequence[bool],
    kept: Sequence[torch.Tensor],
    g: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    *cores: torch.Tensor,
) -> list[torch.Tensor | None]:
    """Return the gradients of (x, weight, *cores) from g (.., out), that of the values; None where not `needed`.

    kept: the states that `values` returned, or nothing.
    """
    need_x, need_weight, *need_cores = needed
    rows, g = x.reshape(-1, x.shape[-1]).contiguous(), g.reshape(-1, g.shape[-1]).contiguous()
    dx: torch.Tensor | None = None
    d_cores: list[torch.Tensor | None] = [None] * len(cores)
    if need_x or any(need_cores):
        dx, d_cores = _x_and_core_gradients(g, rows, weight, cores, schedule, scale, need_cores, kept)
    d_weight = (g.t() @ rows).to(weight.dtype) if need_weight and weight is not None else None
    return [dx if dx is None else dx.view(x.shape), d_weight, *d_cores]


def compose(
    schedule: Schedule,
    scale: float,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    *cores: torch.Tensor,
) -> torch.Tensor:
    """The values in plain differentiable operations, which any transform of torch understands.

    Operands may have another number of rows than `schedule` was chosen for, and no dense weight.
    """
    spec = schedule.spec
    weight = weight if weight is None or weight.dtype == x.dtype else weight.to(x.dtype)
    if schedule.plan.kind == "full":
        dense = dense_matrix(cores, scale, x.dtype).t()
        return functional.linear(x, dense if weight is None else weight + dense, bias)
    factors = plan_factors(cores, schedule.plan, spec.closed, scale, x.dtype)
    y = compose_chain(x.reshape(-1, x.shape[-1]), schedule.chain.steps, factors).reshape(
        *x.shape[:-1], spec.out_features
    )
    if weight is not None:
        return y + functional.linear(x, weight, bias)
    return y if bias is None else y + bias


def _x_and_core_gradients(
    g: torch.Tensor,
    rows: torch.Tensor,
    weight: torch.Tensor | None,
    cores: Sequence[torch.Tensor],
    schedule: Schedule,
    scale: float,
    need_cores: Sequence[bool],
    kept: Sequence[torch.Tensor],
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """The gradients of x, as (rows, in), and of each core; None where not needed."""
    spec, plan = schedule.spec, schedule.plan
    factors = plan_factors(cores, plan, spec.closed, scale, rows.dtype)
    dx = torch.empty_like(rows) if spec.x_gradient else None
    d_factors: list[torch.Tensor] | None = None
    accumulate = weight is not None and plan.kind in ("chain", "paired")
    if accumulate and dx is not None and weight is not None:
        torch.mm(g, weight.to(g.dtype), out=dx)
    if plan.kind == "chain":
        d_factors = schedule.chain.backward(factors, rows, g, dx, accumulate, any(need_cores), kept)
    elif plan.kind == "paired":
        d_factors = schedule.pair(factors).backward(rows, g, dx, accumulate)
    else:
        full = schedule.full(factors, weight)
        if dx is not None:
            full.input_gradient(g, dx)
        if any(need_cores) and plan.kind == "full":
            d_factors = full.factor_gradients(rows, g)
        elif any(need_cores):
            d_factors = schedule.pair(factors).backward(rows, g, None, accumulate=False)
    if d_factors is None:
        return dx, [None] * len(cores)
    triples = zip(core_gradients(d_factors, cores, plan, spec, scale), cores, need_cores, strict=True)
    return dx, [gradient.to(core.dtype).contiguous() if need else None for gradient, core, need in triples]
