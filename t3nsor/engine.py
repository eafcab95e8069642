"""Values and gradients of x weight^T + scale * x W + bias, W given by cores, by the plans of the cost model.

Here nothing knows of autograd: tensors in, tensors out. `compose` is the same function in differentiable operations.
"""

import torch
from torch.nn import functional

from t3nsor.contraction import compose_chain
from t3nsor.cores import without_autocast
from t3nsor.dense import Whole
from t3nsor.factors import core_gradients, parts_of
from t3nsor.recipes import Problem, Recipe, problem_of


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
