"""Values and gradients of x weight^T + scale * x W + bias, with W given by its cores, by the plans of the cost model.

Nothing here knows of autograd: tensors in, tensors out. `compose` is the same function in differentiable operations.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from t3nsor.contraction.chain import Chain
from t3nsor.contraction.cost_model import (
    choose_plan,
    first_plan,
    keeps_states,
    modes_per_block,
    rows_per_block,
    state_size,
    steps_of,
)
from t3nsor.contraction.factors import core_gradients, dense_matrix, plan_factors
from t3nsor.contraction.full import FullMatrix
from t3nsor.contraction.paired import pair_gradients
from t3nsor.contraction.plans import ContractionSpec, Plan, rounded_row_count

LITTLE = 2**18  # numbers
EXPORTED_ROWS = 128  # for which plans are chosen where programs are for any number of rows


class Operands(NamedTuple):
    """What x weight^T + scale * x W + bias is computed of.

    x: (.., in).
    weight: (out, in) or None.
    bias: (out,) or None.
    cores: of W.
    """

    x: torch.Tensor
    weight: torch.Tensor | None
    bias: torch.Tensor | None
    cores: Sequence[torch.Tensor]
    scale: float = 1.0


class Schedule:
    """A plan with its block sizes, for operands of one spec."""

    def __init__(self, spec: ContractionSpec, plan: Plan):
        self.spec, self.plan, self.rows_per_block = spec, plan, rows_per_block(spec, plan)
        self.chain = Chain(steps_of(spec, plan), self.rows_per_block)
        self.modes_per_block = modes_per_block(spec, plan) if plan.kind in ("full", "hybrid") else 0

    def factors(self, operands: Operands) -> list[torch.Tensor]:
        return plan_factors(operands.cores, self.plan, self.spec.closed, operands.scale, operands.x.dtype)


class Training:
    """The schedules of a backward pass with `plan` after a forward pass with `first`, see `first_plan`.

    keeps: True if the states between the steps, which are the same in both passes, are kept for the second.
    composes: True if autograd's own operations, which are the cheapest to call, keep little more for the backward pass,
        such as permuted copies of x.
    """

    def __init__(self, spec: ContractionSpec, plan: Plan, first: Plan):
        self.forward, self.backward = Schedule(spec, first), Schedule(spec, plan)
        self.keeps = keeps_states(spec, plan)
        more = spec.rows * (spec.in_features + (0 if self.keeps else state_size(spec, first)))
        if first.kind == "full":
            more = 2 * spec.in_features * spec.out_features
        self.composes = spec.few_rows or (spec.save == "fast" and more <= LITTLE)


class Contraction:
    """The schedules for operands of one spec: for the values alone, and for each set of gradients asked for."""

    def __init__(self, spec: ContractionSpec, strategy: str | Plan):
        self.spec, self.strategy = spec, strategy
        self.is_measured = False
        self.plan_again()

    def plan_again(self) -> None:
        """Choose the plans, by what is known of the machine now."""
        self.forward = Schedule(self.spec, choose_plan(self.spec, self.strategy))
        self._training: dict[tuple[bool, bool], Training] = {}

    def training(self, x_gradient: bool, core_gradients: bool) -> Training:
        """Return the schedules for the gradients of x, of the cores, or of both."""
        wanted = x_gradient, core_gradients
        if wanted not in self._training:
            spec = replace(self.spec, x_gradient=x_gradient, core_gradients=core_gradients)
            plan = choose_plan(spec, self.strategy, backward=True)
            self._training[wanted] = Training(spec, plan, first_plan(spec, plan, self.strategy))
        return self._training[wanted]


def contraction_for(
    x: torch.Tensor,
    cores: Sequence[torch.Tensor],
    closed: bool,
    with_dense_weight: bool,
    strategy: str | Plan = "auto",
    save: str = "fast",
) -> Contraction:
    """Return the contraction of x (.., in) with the cores of a train or a ring, alone or beside a dense weight."""
    rows, shapes = x.numel() // x.shape[-1], [core.shape for core in cores]
    if torch.jit.is_tracing():  # sizes are tensors there
        rows, shapes = int(rows), [torch.Size(map(int, shape)) for shape in shapes]
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


@torch.compiler.assume_constant_result
def exported_schedule(strategy: str | Plan, closed: bool, with_dense_weight: bool, *others: Any) -> Schedule:
    """A schedule for `compose`, for any number of rows; others: dtype and device of x, and the shapes of the cores."""
    return _chosen_contraction(strategy, "least", closed, with_dense_weight, EXPORTED_ROWS, *others).forward


def values(schedule: Schedule, operands: Operands, keep: bool = False) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """x weight^T + scale * x W + bias, (.., out), and if `keep` the states between the steps of a chain."""
    x, weight, bias, out_features = *operands[:3], schedule.spec.out_features
    result = x.new_empty(*x.shape[:-1], out_features)  # returned itself, not as a view: users may write into it
    rows, y = x.reshape(-1, x.shape[-1]).contiguous(), result.view(-1, out_features)
    factors = schedule.factors(operands)
    if schedule.plan.kind == "full":
        FullMatrix(factors, weight, schedule.modes_per_block).forward(rows, y, bias)
        return result, []
    if weight is not None:
        dense = weight.to(x.dtype).t()
        torch.mm(rows, dense, out=y) if bias is None else torch.addmm(bias, rows, dense, out=y)
    return result, schedule.chain.forward(factors, rows, y, bias if weight is None else y, keep)


def gradients(
    schedule: Schedule, operands: Operands, needed: Sequence[bool], kept: Sequence[torch.Tensor], g: torch.Tensor
) -> list[torch.Tensor | None]:
    """Return the gradients of (x, weight, *cores) from g (.., out), that of the values; None where not `needed`.

    kept: the states that `values` returned, or nothing.
    """
    (x, weight, _, cores, scale), (need_x, need_weight, *need_cores) = operands, needed
    spec, plan, need_any = schedule.spec, schedule.plan, any(need_cores)
    rows, g = x.reshape(-1, x.shape[-1]).contiguous(), g.reshape(-1, g.shape[-1]).contiguous()
    factors = schedule.factors(operands) if need_x or need_any else []
    paired = partial(pair_gradients, rows, g, factors, schedule.rows_per_block, not plan.right_to_left)
    dx, d_factors = torch.empty_like(rows) if need_x else None, None
    if factors and plan.kind in ("chain", "paired"):
        if plan.kind == "paired":
            d_factors = paired(dx)
        else:
            d_factors = schedule.chain.backward(factors, rows, g, dx, need_any, kept)
        if dx is not None and weight is not None:
            dx.addmm_(g, weight.to(g.dtype))
    elif factors:
        full = FullMatrix(factors, weight, schedule.modes_per_block)
        if dx is not None:
            full.input_gradient(g, dx)
        if need_any:
            d_factors = full.factor_gradients(rows, g) if plan.kind == "full" else paired(None)
    d_cores: Sequence[torch.Tensor | None] = [None] * len(cores)
    if d_factors is not None:
        found = zip(core_gradients(d_factors, cores, plan, spec, scale), cores, need_cores, strict=True)
        d_cores = [gradient.to(core.dtype).contiguous() if need else None for gradient, core, need in found]
    d_weight = (g.t() @ rows).to(weight.dtype) if need_weight and weight is not None else None
    return [dx if dx is None else dx.view(x.shape), d_weight, *d_cores]


def compose(schedule: Schedule, operands: Operands) -> torch.Tensor:
    """The values in plain differentiable operations, which any transform of torch understands.

    Operands may have another number of rows than `schedule` was chosen for, and no dense weight.
    """
    x, weight, bias, cores, scale = operands
    weight = weight if weight is None or weight.dtype == x.dtype else weight.to(x.dtype)
    if schedule.plan.kind == "full":
        dense = dense_matrix(cores, scale, x.dtype).t()
        return functional.linear(x, dense if weight is None else weight + dense, bias)
    state = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
    for step, matrix in zip(schedule.chain.steps, schedule.factors(operands), strict=True):
        state = step.multiply(step.operand(state, step.inner), matrix)
    y = state.reshape(*x.shape[:-1], schedule.spec.out_features)
    if weight is not None:
        return y + functional.linear(x, weight, bias)
    return y if bias is None else y + bias
