"""The contraction as one node of the graph: it saves x, the weight, the bias and the cores, and recomputes the rest."""

import torch
from torch.nn import functional

from t3nsor.engine import Settings, compose, gradients, values
from t3nsor.plans import decoded


def contract_eagerly(settings: Settings, *tensors) -> torch.Tensor:
    """x weight^T + scale * x W + bias, differentiable any number of times, in both modes, and under torch.func.

    tensors: x (.., in), weight (out, in) or None, bias (out,) or None, and the cores of W.
    """
    transformed = torch._C._are_functorch_transforms_active()  # as torch.autograd.Function itself asks
    return (_TransformedContraction if transformed else _Contraction).apply(settings, *tensors)


class _Contraction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, settings: Settings, x, weight, bias, *cores):
        _keep(ctx, settings, x, weight, bias, *cores)
        return values(x, weight, bias, cores, settings)

    @staticmethod
    def backward(ctx, g):
        needed = ctx.needs_input_grad[1:]
        if torch.is_grad_enabled():
            return None, *_differentiable_gradients(ctx.settings, ctx.saved_tensors, needed, g)
        x, weight, bias, *cores = ctx.saved_tensors
        return None, *gradients(g, x, weight, bias, cores, ctx.settings, needed)

    @staticmethod
    def jvp(ctx, _, along_x, along_weight, along_bias, *along_cores):
        """The function is linear in each core, and in x, and in weight and bias together."""
        x, weight, bias, *cores = ctx.saved_tensors
        terms = []
        if along_x is not None:
            terms.append(compose(along_x, weight, None, cores, ctx.settings))
        if along_weight is not None:
            terms.append(functional.linear(x, along_weight))
        if along_bias is not None:
            terms.append(along_bias.expand(*x.shape[:-1], -1))
        for k, along in enumerate(along_cores):
            if along is not None:
                terms.append(compose(x, None, None, [*cores[:k], along, *cores[k + 1 :]], ctx.settings))
        return sum(terms)


class _TransformedContraction(_Contraction):
    """The form that torch.func asks for; torch takes as long to call it as for a small product."""

    @staticmethod
    def forward(settings: Settings, x, weight, bias, *cores):
        return values(x, weight, bias, cores, settings)

    @staticmethod
    def setup_context(ctx, inputs, output):
        _keep(ctx, *inputs)

    @staticmethod
    def vmap(info, in_dims, settings, x, weight, bias, *cores):
        if all(dim is None for dim in in_dims[2:]):
            return contract_eagerly(settings, x.movedim(in_dims[1], 0), weight, bias, *cores), 0
        mapped = torch.vmap(_composed(settings), in_dims[1:], randomness=info.randomness)
        return mapped(x, weight, bias, *cores), 0


def _keep(ctx, settings: Settings, *tensors) -> None:
    ctx.settings = settings
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def _composed(settings: Settings):
    return lambda x, weight, bias, *cores: compose(x, weight, bias, cores, settings)


def _differentiable_gradients(settings: Settings, tensors, needed, g):
    """Gradients of (x, weight, bias, *cores) that can be differentiated again; None where there is no need."""
    given = [k for k, need in enumerate(needed) if need]

    def function(*some):
        every = list(tensors)
        for k, tensor in zip(given, some, strict=True):
            every[k] = tensor
        return _composed(settings)(*every)

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
    return values(x, weight, bias, cores, Settings(closed, scale, decoded(strategy)))


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
    found = gradients(g, x, weight, bias, cores, Settings(closed, scale, decoded(strategy)), needed)
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
