"""Values and gradients of x weight^T + scale * x W + bias, W given by cores, by the plans of the cost model.

Here nothing knows of autograd: tensors in, tensors out. `compose` is the same function in differentiable operations.
"""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch.nn import functional

from t3nsor.contraction import Chain, StepShape, compose_chain, step_shapes
from t3nsor.cores import without_autocast
from t3nsor.cost_model import choose, outputs_per_block, rows_per_block
from t3nsor.dense import Dense
from t3nsor.factors import core_gradients, parts_of
from t3nsor.paired import Pair
from t3nsor.plans import Plan, Sizes


@dataclass(frozen=True)
class Settings:
    """What a contraction needs beside tensors: a ring or a train, the factor of the branch, the strategy or plan."""

    closed: bool
    scale: float
    strategy: str | Plan


@dataclass(frozen=True)
class Recipe:
    """A plan with all that follows from the sizes alone, found once for each of them.

    rows: that a chain or a pair handles at once; modes: of the output for which the full matrix is built at once.
    """

    plan: Plan
    dtype: torch.dtype
    steps: list[StepShape]
    rows: int
    modes: int

    def chain(self, matrices) -> Chain:
        return Chain(self.steps, [matrix.to(self.dtype) for matrix in matrices], self.rows)

    def pair(self, factors) -> Pair:
        return Pair(*(factor.to(self.dtype) for factor in factors), self.rows)

    def full(self, factors, weight) -> Dense:
        return Dense(*(factor.to(self.dtype) for factor in factors), weight, self.modes)


@lru_cache(maxsize=4096)
def _recipe(sizes: Sizes, strategy: str | Plan, backward: bool) -> Recipe:
    plan = choose(sizes, strategy, backward)
    steps = step_shapes(sizes.factor_shapes(plan.groups), plan.right_to_left)
    modes = 0 if plan.kind == "chain" else outputs_per_block(sizes, plan)
    return Recipe(plan, getattr(torch, sizes.dtype), steps, rows_per_block(sizes, plan), modes)


def sizes_of(x: torch.Tensor, cores, closed: bool, beside: bool) -> Sizes:
    """What the choice of a plan depends on. Rows are rounded to a power of two, so that choices can be kept."""
    rows = 2 ** round(math.log2(max(1, x.numel() // x.shape[-1])))
    inputs, outputs = tuple(core.shape[1] for core in cores), tuple(core.shape[2] for core in cores)
    ranks = (*(core.shape[0] for core in cores), cores[-1].shape[-1])
    dtype = str(x.dtype).removeprefix("torch.")
    return Sizes(inputs, outputs, ranks, closed, rows, dtype, x.device.type, beside)


def values(x, weight, bias, cores, settings: Settings) -> torch.Tensor:
    """(.., in) -> (.., out); `weight` (out, in) and `bias` (out,) or None."""
    sizes = sizes_of(x, cores, settings.closed, weight is not None)
    recipe = _recipe(sizes, settings.strategy, False)
    rows = x.reshape(-1, sizes.in_features).contiguous()
    y = rows.new_empty(rows.shape[0], sizes.out_features)
    with without_autocast(x.device):
        parts = parts_of(cores, recipe.plan, settings.closed, settings.scale)
        if recipe.plan.kind == "full":
            recipe.full(parts, weight).forward(rows, y, bias)
        elif weight is None:
            recipe.chain(parts).forward(rows, y, accumulate=False, bias=bias)
        else:
            dense = weight.to(x.dtype).t()
            torch.mm(rows, dense, out=y) if bias is None else torch.addmm(bias, rows, dense, out=y)
            recipe.chain(parts).forward(rows, y, accumulate=True)
    return y.view(*x.shape[:-1], sizes.out_features)


def gradients(g, x, weight, bias, cores, settings: Settings, needed) -> list[torch.Tensor | None]:
    """Gradients of (x, weight, bias, *cores), those that `needed` names, from that of the values, g (.., out)."""
    need_x, need_weight, need_bias, *need_cores = needed
    sizes = sizes_of(x, cores, settings.closed, weight is not None)
    sizes = replace(sizes, x_gradient=need_x, core_gradients=any(need_cores))
    rows, g = x.reshape(-1, sizes.in_features).contiguous(), g.reshape(-1, sizes.out_features).contiguous()
    dx, of_cores = None, [None] * len(cores)
    with without_autocast(x.device):
        if need_x or any(need_cores):
            dx, of_cores = _x_and_cores(g, rows, weight, cores, sizes, settings, need_cores)
        of_weight = (g.t() @ rows).to(weight.dtype) if need_weight else None
        of_bias = g.sum(0) if need_bias else None
    return [dx if dx is None else dx.view(x.shape), of_weight, of_bias, *of_cores]


def compose(x, weight, bias, cores, settings: Settings) -> torch.Tensor:
    """The values in plain differentiable operations, which any transform of torch understands."""
    sizes = sizes_of(x, cores, settings.closed, weight is not None)
    recipe = _recipe(sizes, settings.strategy, False)
    rows = x.reshape(-1, sizes.in_features)
    with without_autocast(x.device):
        parts = parts_of(cores, recipe.plan, settings.closed, settings.scale)
        weight = None if weight is None else weight.to(x.dtype)
        if recipe.plan.kind == "full":
            dense = _dense(*parts)
            y = functional.linear(rows, (dense if weight is None else weight + dense).to(x.dtype), bias)
        else:
            y = compose_chain(rows, recipe.steps, [part.to(x.dtype) for part in parts])
            y = y.reshape(-1, sizes.out_features)
            if weight is not None:
                y = y + functional.linear(rows, weight)
            if bias is not None:
                y = y + bias
    return y.view(*x.shape[:-1], sizes.out_features)


def _dense(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Two factors (m1, n1, r) and (r, m2, n2) -> (m1 * m2, n1 * n2)."""
    product = (first.flatten(0, 1) @ second.flatten(1)).view(*first.shape[:2], *second.shape[1:])
    return product.transpose(1, 2).flatten(2).flatten(0, 1)


def _x_and_cores(g, rows, weight, cores, sizes: Sizes, settings: Settings, need_cores):
    """The gradients of x (rows, in) and of each core, None where there is no need."""
    recipe = _recipe(sizes, settings.strategy, True)
    plan, parts = recipe.plan, parts_of(cores, recipe.plan, settings.closed, settings.scale)
    wide = torch.float32 if rows.dtype.itemsize == 2 else rows.dtype
    sums = [part.new_zeros(part.shape, dtype=wide) for part in parts] if any(need_cores) else None
    dx = torch.empty_like(rows) if sizes.x_gradient else None
    if plan.kind == "chain":
        if weight is not None and dx is not None:
            torch.mm(g, weight.to(g.dtype), out=dx)
        recipe.chain(parts).backward(rows, g, dx, sums, accumulate=weight is not None)
    elif plan.kind == "paired":
        if weight is not None and dx is not None:
            torch.mm(g, weight.to(g.dtype), out=dx)
        recipe.pair(parts).backward(rows, g, sums, dx, weight is not None, exchanged=not plan.right_to_left)
    else:
        dense = recipe.full(parts, weight)
        if dx is not None:
            dense.pull(g, dx)
        if sums is not None and plan.kind == "full":
            dense.gradients(rows, g, *sums)
        elif sums is not None:
            recipe.pair(parts).backward(rows, g, sums, None, False, exchanged=not plan.right_to_left)
    if sums is None:
        return dx, [None] * len(cores)
    found = core_gradients(sums, cores, plan, sizes, settings.scale)
    pairs = zip(found, cores, need_cores, strict=True)
    return dx, [gradient.to(core.dtype).contiguous() if need else None for gradient, core, need in pairs]
