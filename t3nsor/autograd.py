"""The contraction as one node of the graph: it saves x, the weight, the bias and the cores, and recomputes the rest."""

from functools import partial

import torch
from torch.autograd import forward_ad
from torch.nn import functional

from t3nsor.engine import compose, gradients, values
from t3nsor.plans import decoded
from t3nsor.recipes import Problem, problem_of


def contract_eagerly(problem: Problem, scale: float, *tensors) -> torch.Tensor:
    """x weight^T + scale * x W + bias, differentiable any number of times, in both modes, and under torch.func.

    tensors: x (.., in), weight (out, in) or None, bias (out,) or None, and the cores of W.
    """
    if torch._C._are_functorch_transforms_active():  # as torch.autograd.Function itself asks
        return _TransformedContraction.apply(problem, scale, *tensors)
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return _Contraction.apply(problem, scale, *tensors)
    return values(problem, scale, *tensors)  # a node would cost as much as a small product


class _Contraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, problem: Problem, scale: float, *tensors):
        _keep(ctx, problem, scale, *tensors)
        return values(problem, scale, *tensors)

    @staticmethod
    def backward(ctx, g):
        needed = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            return None, None, *_differentiable_gradients(ctx.settings, ctx.saved_tensors, needed, g)
        x, weight, _, *cores = ctx.saved_tensors
        return None, None, *gradients(*ctx.settings, needed, g, x, weight, *cores)

    @staticmethod
    def jvp(ctx, _, __, along_x, along_weight, along_bias, *along_cores):
        """The function is linear in each core, and in x, and in weight and bias together."""
        x, weight, _, *cores = ctx.saved_tensors
        terms = []
        if along_x is not None:
            terms.append(compose(*ctx.settings, along_x, weight, None, *cores))
        if along_weight is not None:
            terms.append(functional.linear(x, along_weight))
        if along_bias is not None:
            terms.append(along_bias.expand(*x.shape[:-1], -1))
        for k, along in enumerate(along_cores):
            if along is not None:
                terms.append(compose(*ctx.settings, x, None, None, *cores[:k], along, *cores[k + 1 :]))
        return sum(terms)


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


def _keep(ctx, problem: Problem, scale: float, *tensors) -> None:
    ctx.settings = problem, scale
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _differentiable_gradients(settings: tuple[Problem, float], tensors, needed, g):
    """Gradients of (x, weight, bias, *cores) that can be differentiated again; None where there is no need."""
    given = [k for k, need in enumerate(needed) if need]

    def function(*some):
        every = list(tensors)
        for k, tensor in zip(given, some, strict=True):
            every[k] = tensor
        return compose(*settings, *every)

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
    bias: torch.Tensor | None,
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
def _(g, x, weight, bias, cores, closed, scale, strategy, needed):
    return [torch.empty_like(t) for t, need in zip((x, weight, bias, *cores), needed, strict=True) if need]


def _save(ctx, inputs, output):
    x, weight, bias, cores, *ctx.settings = inputs
    ctx.save_for_backward(x, weight, bias, *cores)


def _compiled_backward(ctx, g):
    x, weight, bias, *cores = ctx.saved_tensors
    need_x, need_weight, need_bias, need_cores, *_ = ctx.needs_input_grad
    needed = [need_x, need_weight, need_bias, *need_cores]
    found = iter(contract_backward(g, x, weight, bias, cores, *ctx.settings, needed))
    dx, of_weight, of_bias, *of_cores = (next(found) if need else None for need in needed)
    return dx, of_weight, of_bias, of_cores, None, None, None


contract.register_autograd(_compiled_backward, setup_context=_save)
