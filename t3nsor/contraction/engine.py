"""Values and gradients of x weight^T + scale * x W + bias, W given by cores, by the plans of the cost model.

Here nothing knows of autograd: tensors in, tensors out. `compose` is the same function in differentiable operations.
"""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import torch
from torch.nn import functional

from t3nsor.autocast import without_autocast
from t3nsor.contraction.chain import Chain, StepShape, compose_chain, step_shapes
from t3nsor.contraction.cost_model import choose, is_built_whole, outputs_per_block, rows_per_block
from t3nsor.contraction.factors import core_gradients, parts_of
from t3nsor.contraction.full import Pieces, Whole
from t3nsor.contraction.paired import Pair
from t3nsor.contraction.plans import Plan, Sizes


@dataclass(frozen=True)
class Recipe:
    """A plan with all that follows from the sizes alone.

    block: rows that a chain or a pair handles at once. modes: how many output modes of a full matrix are built at once;
    None: all of them, which is for a matrix without a weight beside it only.
    """

    sizes: Sizes
    plan: Plan
    steps: list[StepShape]
    block: int
    modes: int | None

    def chain(self, matrices) -> Chain:
        return Chain(self.steps, matrices, self.block)

    def pair(self, factors) -> Pair:
        return Pair(*factors, self.block, exchanged=not self.plan.right_to_left)

    def full(self, factors, weight) -> Whole | Pieces:
        return Whole(*factors) if self.modes is None else Pieces(*factors, weight, self.modes)


@dataclass(frozen=True)
class Problem:
    """The sizes of a contraction and its strategy, or plan, with the recipes for both passes that follow."""

    sizes: Sizes
    strategy: str | Plan
    _backward: dict[tuple[bool, bool], Recipe] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def forward(self) -> Recipe:
        return _recipe(self.sizes, self.strategy, False)

    def backward(self, *wanted: bool) -> Recipe:
        """The recipe for the gradients of (x, cores), those that are wanted."""
        if wanted not in self._backward:
            x_gradient, core_gradients = wanted
            sizes = replace(self.sizes, x_gradient=x_gradient, core_gradients=core_gradients)
            self._backward[wanted] = _recipe(sizes, self.strategy, True)
        return self._backward[wanted]


def problem_of(x: torch.Tensor, cores, closed: bool, beside: bool, strategy: str | Plan = "auto") -> Problem:
    """x (.., in) times cores of a train or a ring, alone or beside a dense weight."""
    shapes = [core.shape for core in cores]
    return problem_of_shapes(strategy, closed, beside, x.dtype, x.device, x.shape, *shapes)


@lru_cache(maxsize=4096)
def problem_of_shapes(strategy, closed, beside, dtype, device, x_shape, *shapes) -> Problem:
    inputs, outputs = tuple(shape[1] for shape in shapes), tuple(shape[2] for shape in shapes)
    ranks, rows = (*(shape[0] for shape in shapes), shapes[-1][-1]), counted(math.prod(x_shape[:-1]))
    sizes = Sizes(inputs, outputs, ranks, closed, rows, str(dtype).removeprefix("torch."), device.type, beside)
    return _problem(sizes, strategy)


def counted(rows: int) -> int:
    """The power of two as which rows are counted, so that there are few choices to make."""
    return 2 ** round(math.log2(max(1, rows)))


_problem = lru_cache(maxsize=4096)(Problem)


def _recipe(sizes: Sizes, strategy: str | Plan, backward: bool) -> Recipe:
    plan = choose(sizes, strategy, backward)
    steps = step_shapes(sizes.factor_shapes(plan.groups), plan.right_to_left)
    in_pieces = plan.kind in ("full", "hybrid") and not is_built_whole(sizes)
    modes = outputs_per_block(sizes, plan) if in_pieces else None
    return Recipe(sizes, plan, steps, rows_per_block(sizes, plan), modes)


def values(problem: Problem, scale: float, x, weight, bias, *cores) -> torch.Tensor:
    """(.., in) -> (.., out); `weight` (out, in) and `bias` (out,) or None."""
    recipe = problem.forward
    result = x.new_empty(*x.shape[:-1], recipe.sizes.out_features)  # a view of it would not do: users write into it
    rows, y = x.reshape(-1, x.shape[-1]).contiguous(), result.view(-1, result.shape[-1])
    with without_autocast(x.device):
        parts = parts_of(cores, recipe.plan, recipe.sizes.closed, scale, x.dtype)
        if recipe.plan.kind == "full":
            recipe.full(parts, weight).forward(rows, y, bias)
        elif weight is None:
            recipe.chain(parts).forward(rows, y, accumulate=False, bias=bias)
        else:
            dense = weight.to(x.dtype).t()
            torch.mm(rows, dense, out=y) if bias is None else torch.addmm(bias, rows, dense, out=y)
            recipe.chain(parts).forward(rows, y, accumulate=True)
    return result


def gradients(problem: Problem, scale: float, needed, g, x, weight, *cores) -> list[torch.Tensor | None]:
    """Gradients of (x, weight, *cores), those that `needed` names, from that of the values, g (.., out)."""
    need_x, need_weight, *need_cores = needed
    rows, g = x.reshape(-1, x.shape[-1]).contiguous(), g.reshape(-1, g.shape[-1]).contiguous()
    dx, of_cores = None, [None] * len(cores)
    with without_autocast(x.device):
        if need_x or any(need_cores):
            recipe = problem.backward(need_x, any(need_cores))
            dx, of_cores = _x_and_cores(g, rows, weight, cores, recipe, scale, need_cores)
        of_weight = (g.t() @ rows).to(weight.dtype) if need_weight else None
    return [dx if dx is None else dx.view(x.shape), of_weight, *of_cores]


def compose(problem: Problem, scale: float, x, weight, bias, *cores) -> torch.Tensor:
    """The values in plain differentiable operations, which any transform of torch understands.

    Operands may have other numbers of rows than the problem, and no weight beside them.
    """
    recipe = problem_of(x, cores, problem.sizes.closed, weight is not None, problem.strategy).forward
    rows, out_features = x.reshape(-1, x.shape[-1]), recipe.sizes.out_features
    with without_autocast(x.device):
        parts = parts_of(cores, recipe.plan, recipe.sizes.closed, scale, x.dtype)
        weight = None if weight is None else weight.to(x.dtype)
        if recipe.plan.kind == "full":
            dense = Whole(*parts).matrix().t()
            y = functional.linear(rows, dense if weight is None else weight + dense, bias)
        else:
            y = compose_chain(rows, recipe.steps, parts).reshape(-1, out_features)
            if weight is not None:
                y = y + functional.linear(rows, weight)
            if bias is not None:
                y = y + bias
    return y.view(*x.shape[:-1], out_features)


def _x_and_cores(g, rows, weight, cores, recipe: Recipe, scale: float, need_cores):
    """The gradients of x (rows, in) and of each core, None where there is no need."""
    plan, sizes = recipe.plan, recipe.sizes
    parts = parts_of(cores, plan, sizes.closed, scale, rows.dtype)
    dx, sums = torch.empty_like(rows) if sizes.x_gradient else None, None
    accumulate = weight is not None and plan.kind in ("chain", "paired")
    if accumulate and dx is not None:
        torch.mm(g, weight.to(g.dtype), out=dx)
    if plan.kind == "chain":
        sums = recipe.chain(parts).backward(rows, g, dx, accumulate, any(need_cores))
    elif plan.kind == "paired":
        sums = recipe.pair(parts).backward(rows, g, dx, accumulate)
    else:
        dense = recipe.full(parts, weight)
        if dx is not None:
            dense.pull(g, dx)
        if any(need_cores):
            sums = (
                dense.gradients(rows, g) if plan.kind == "full" else recipe.pair(parts).backward(rows, g, None, False)
            )
    if sums is None:
        return dx, [None] * len(cores)
    found = core_gradients(sums, cores, plan, sizes, scale)
    pairs = zip(found, cores, need_cores, strict=True)
    return dx, [gradient.to(core.dtype).contiguous() if need else None for gradient, core, need in pairs]
