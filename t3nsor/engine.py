"""Values and gradients of x weight^T + scale * x W + bias, W given by cores, by the plans of the cost model.

Here nothing knows of autograd: tensors in, tensors out. `compose` is the same function in differentiable operations.
"""

import math
from dataclasses import dataclass
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

    sizes: Sizes
    plan: Plan
    steps: list[StepShape]
    rows: int
    modes: int

    def chain(self, matrices) -> Chain:
        return Chain(self.steps, matrices, self.rows)

    def pair(self, factors) -> Pair:
        return Pair(*factors, self.rows)

    def full(self, factors, weight) -> Dense:
        return Dense(*factors, weight, self.modes)


@lru_cache(maxsize=4096)
def _recipe(strategy: str | Plan, backward: bool, *sizes) -> Recipe:
    sizes = _sizes(*sizes)
    plan = choose(sizes, strategy, backward)
    steps = step_shapes(sizes.factor_shapes(plan.groups), plan.right_to_left)
    modes = 0 if plan.kind == "chain" else outputs_per_block(sizes, plan)
    return Recipe(sizes, plan, steps, rows_per_block(sizes, plan), modes)


def _sizes(shapes, closed: bool, rows: int, dtype: torch.dtype, device: str, *rest) -> Sizes:
    inputs, outputs = tuple(shape[1] for shape in shapes), tuple(shape[2] for shape in shapes)
    ranks = (*(shape[0] for shape in shapes), shapes[-1][-1])
    return Sizes(inputs, outputs, ranks, closed, rows, str(dtype).removeprefix("torch."), device, *rest)


def _size_key(x: torch.Tensor, cores, closed: bool, beside: bool) -> tuple:
    """What the choice of a plan depends on. Rows are rounded to a power of two, so that choices can be kept."""
    rows = 2 ** round(math.log2(max(1, x.numel() // x.shape[-1])))
    return tuple([core.shape for core in cores]), closed, rows, x.dtype, x.device.type, beside


def sizes_of(x: torch.Tensor, cores, closed: bool, beside: bool) -> Sizes:
    """What the choice of a plan depends on, for these operands."""
    return _sizes(*_size_key(x, cores, closed, beside))


def values(x, weight, bias, cores, settings: Settings) -> torch.Tensor:
    """(.., in) -> (.., out); `weight` (out, in) and `bias` (out,) or None."""
    recipe = _recipe(settings.strategy, False, *_size_key(x, cores, settings.closed, weight is not None))
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    y = rows.new_empty(rows.shape[0], recipe.sizes.out_features)
    with without_autocast(x.device):
        parts = parts_of(cores, recipe.plan, settings.closed, settings.scale, x.dtype)
        if recipe.plan.kind == "full":
            recipe.full(parts, weight).forward(rows, y, bias)
        elif weight is None:
            recipe.chain(parts).forward(rows, y, accumulate=False, bias=bias)
        else:
            dense = weight.to(x.dtype).t()
            torch.mm(rows, dense, out=y) if bias is None else torch.addmm(bias, rows, dense, out=y)
            recipe.chain(parts).forward(rows, y, accumulate=True)
    return y if x.dim() == 2 else y.view(*x.shape[:-1], y.shape[1])


def gradients(g, x, weight, bias, cores, settings: Settings, needed) -> list[torch.Tensor | None]:
    """Gradients of (x, weight, bias, *cores), those that `needed` names, from that of the values, g (.., out)."""
    need_x, need_weight, need_bias, *need_cores = needed
    key = _size_key(x, cores, settings.closed, weight is not None)
    recipe = _recipe(settings.strategy, True, *key, need_x, any(need_cores))
    rows, g = x.reshape(-1, x.shape[-1]).contiguous(), g.reshape(-1, g.shape[-1]).contiguous()
    dx, of_cores = None, [None] * len(cores)
    with without_autocast(x.device):
        if need_x or any(need_cores):
            dx, of_cores = _x_and_cores(g, rows, weight, cores, recipe, settings, need_cores)
        of_weight = (g.t() @ rows).to(weight.dtype) if need_weight else None
        of_bias = g.sum(0) if need_bias else None
    return [dx if dx is None else dx.view(x.shape), of_weight, of_bias, *of_cores]


def compose(x, weight, bias, cores, settings: Settings) -> torch.Tensor:
    """The values in plain differentiable operations, which any transform of torch understands."""
    recipe = _recipe(settings.strategy, False, *_size_key(x, cores, settings.closed, weight is not None))
    rows, out_features = x.reshape(-1, x.shape[-1]), recipe.sizes.out_features
    with without_autocast(x.device):
        parts = parts_of(cores, recipe.plan, settings.closed, settings.scale, x.dtype)
        weight = None if weight is None else weight.to(x.dtype)
        if recipe.plan.kind == "full":
            dense = _dense(*parts)
            y = functional.linear(rows, dense if weight is None else weight + dense, bias)
        else:
            y = compose_chain(rows, recipe.steps, parts).reshape(-1, out_features)
            if weight is not None:
                y = y + functional.linear(rows, weight)
            if bias is not None:
                y = y + bias
    return y.view(*x.shape[:-1], out_features)


def _dense(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Two factors (m1, n1, r) and (r, m2, n2) -> (m1 * m2, n1 * n2)."""
    product = (first.flatten(0, 1) @ second.flatten(1)).view(*first.shape[:2], *second.shape[1:])
    return product.transpose(1, 2).flatten(2).flatten(0, 1)


def _x_and_cores(g, rows, weight, cores, recipe: Recipe, settings: Settings, need_cores):
    """The gradients of x (rows, in) and of each core, None where there is no need."""
    plan, sizes = recipe.plan, recipe.sizes
    parts = parts_of(cores, plan, settings.closed, settings.scale, rows.dtype)
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
