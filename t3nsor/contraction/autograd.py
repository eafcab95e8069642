"""The contraction as one node of the graph: it saves x, the weight and the cores, and recomputes the rest."""

from functools import partial

import torch
from torch.autograd import forward_ad

from t3nsor.contraction.engine import Problem, compose, gradients, problem_of, values
from t3nsor.contraction.plans import decoded


def contract_eagerly(problem: Problem, scale: float, *tensors) -> torch.Tensor:
    """x weight^T + scale * x W + bias, differentiable any number of times, in both modes, and under torch.func.

    tensors: x (.., in), weight (out, in) or None, bias (out,) or None, and the cores of W.
    """
    if forward_ad._current_level >= 0:  # the jvp of a Function could not be differentiated in this mode again
        return compose(problem, scale, *tensors)
    if torch._C._are_functorch_transforms_active():  # as torch.autograd.Function itself asks
        return _TransformedContraction.apply(problem, scale, *tensors)
    if torch.is_grad_enabled():
        return _Contraction.apply(problem, scale, *tensors)
    return values(problem, scale, *tensors)  # a node would cost as much as a small product


class _Contraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, problem: Problem, scale: float, *tensors):
        _keep(ctx, problem, scale, *tensors)
        return values(problem, scale, *tensors)

    @staticmethod
    def backward(ctx, g):
        need_x, need_weight, need_bias, *need_cores = ctx.needs_input_grad[2:]
        x, weight, *cores = ctx.saved_tensors
        needed, batched = (need_x, need_weight, *need_cores), torch._C._functorch.is_legacy_batchedtensor(g)
        function = _differentiable_gradients if batched or torch.is_grad_enabled() else gradients
        dx, of_weight, *of_cores = function(*ctx.settings, needed, g, x, weight, *cores)
        of_bias = g.reshape(-1, g.shape[-1]).sum(0) if need_bias else None
        return None, None, dx, of_weight, of_bias, *of_cores


class _TransformedContraction(_Contraction):
    """The form that torch.func asks for; torch takes as long to call it as for a small product."""

    @staticmethod
    def forward(problem: Problem, scale: float, *tensors):
        return values(problem, scale, *tensors)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _keep(ctx, *inputs)

    @staticmethod
    def vmap(info, in_dims, problem, scale, x, weight, bias, *cores):
        if all(dim is None for dim in in_dims[3:]):
            x = x.movedim(in_dims[2], 0)
            problem = problem_of(x, cores, problem.sizes.closed, weight is not None, problem.strategy)
            return contract_eagerly(problem, scale, x, weight, bias, *cores), 0
        mapped = torch.vmap(partial(compose, problem, scale), in_dims[2:], randomness=info.randomness)
        return mapped(x, weight, bias, *cores), 0


def _keep(ctx, problem: Problem, scale: float, x, weight, bias, *cores) -> None:
    ctx.settings = problem, scale
    ctx.save_for_backward(x, weight, *cores)


def _differentiable_gradients(problem: Problem, scale: float, needed, g, x, weight, *cores):
    """Gradients of (x, weight, *cores) that can be differentiated again; None where there is no need."""
    tensors = [x, weight, *cores]
    given = [k for k, need in enumerate(needed) if need]

    def function(*some):
        x, weight, *cores = (some[given.index(k)] if k in given else tensor for k, tensor in enumerate(tensors))
        return compose(problem, scale, x, weight, None, *cores)

    _, pull = torch.func.vjp(function, *(tensors[k] for k in given))
    found = dict(zip(given, pull(g), strict=True))
    return [found.get(k) for k in range(len(tensors))]


# torch.compile sees two operations, whose plans are chosen when they run, for the rows that there are.


@torch.library.custom_op("t3nsor::contract", mutates_args=())
def contract(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    cores: list[torch.Tensor],
    closed: bool,
    scale: float,
    strategy: str,
) -> torch.Tensor:
    problem = problem_of(x, cores, closed, weight is not None, decoded(strategy))
    return values(problem, scale, x, weight, bias, *cores)


@contract.register_fake
def _(x, weight, bias, cores, closed, scale, strategy):
    out_features = 1
    for core in cores:
        out_features *= core.shape[2]
    return x.new_empty(*x.shape[:-1], out_features)


@torch.library.custom_op("t3nsor::contract_backward", mutates_args=())
def contract_backward(
    g: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    cores: list[torch.Tensor],
    closed: bool,
    scale: float,
    strategy: str,
    needed: list[bool],
) -> list[torch.Tensor]:
    problem = problem_of(x, cores, closed, weight is not None, decoded(strategy))
    found = gradients(problem, scale, needed, g, x, weight, *cores)
    return [gradient for gradient in found if gradient is not None]


@contract_backward.register_fake
def _(g, x, weight, cores, closed, scale, strategy, needed):
    return [t.new_empty(t.shape) for t, need in zip((x, weight, *cores), needed, strict=True) if need]


def _save(ctx, inputs, output):
    x, weight, _, cores, *ctx.settings = inputs
    ctx.save_for_backward(x, weight, *cores)


def _compiled_backward(ctx, g):
    x, weight, *cores = ctx.saved_tensors
    need_x, need_weight, need_bias, need_cores, *_ = ctx.needs_input_grad
    needed = [need_x, need_weight, *need_cores]
    found = iter(contract_backward(g, x, weight, cores, *ctx.settings, needed))
    dx, of_weight, *of_cores = (next(found) if need else None for need in needed)
    of_bias = g.reshape(-1, g.shape[-1]).sum(0) if need_bias else None
    return dx, of_weight, of_bias, of_cores, None, None, None


contract.register_autograd(_compiled_backward, setup_context=_save)
