"""The contraction as one node of the graph: it saves x, the weight and the cores, and recomputes everything else."""

import math
from collections.abc import Sequence
from functools import partial

import torch

from t3nsor.contraction.engine import Contraction, compose, contraction_for, gradients, values
from t3nsor.contraction.plans import decode_strategy
from t3nsor.contraction.torch_internals import in_forward_mode, in_functorch_transform, is_legacy_batched


def contract_eagerly(
    contraction: Contraction,
    scale: float,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    *cores: torch.Tensor,
) -> torch.Tensor:
    """x weight^T + scale * x W + bias, differentiable any number of times, in both modes, and under torch.func.

    x: (.., in).
    weight: (out, in) or None.
    bias: (out,) or None.
    cores: of W.
    """
    # The jvp of a Function could not be differentiated in forward mode again, and a trace has no place for one.
    if in_forward_mode() or torch.jit.is_tracing():
        return compose(contraction, scale, x, weight, bias, *cores)
    if in_functorch_transform():
        return _TransformedContraction.apply(contraction, scale, x, weight, bias, *cores)
    if torch.is_grad_enabled():
        return _ContractionNode.apply(contraction, scale, x, weight, bias, *cores)
    return values(contraction, scale, x, weight, bias, *cores)  # a node would cost as much as a small product


def _save(ctx, inputs, output):
    contraction, scale, x, weight, _, *cores = inputs
    ctx.settings = contraction, scale
    ctx.save_for_backward(x, weight, *cores)


def _backward(ctx, g):
    need_x, need_weight, need_bias, *need_cores = ctx.needs_input_grad[2:]
    (contraction, scale), (x, weight, *cores) = ctx.settings, ctx.saved_tensors
    function = _differentiable_gradients if torch.is_grad_enabled() or is_legacy_batched(g) else gradients
    dx, d_weight, *d_cores = function(contraction, scale, (need_x, need_weight, *need_cores), g, x, weight, *cores)
    d_bias = g.reshape(-1, g.shape[-1]).sum(0) if need_bias else None
    return None, None, dx, d_weight, d_bias, *d_cores


class _ContractionNode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, contraction, scale, *tensors):
        _save(ctx, (contraction, scale, *tensors), None)
        return values(contraction, scale, *tensors)

    backward = staticmethod(_backward)


class _TransformedContraction(torch.autograd.Function):
    """The form that torch.func asks for; calling it takes as long as a small product."""

    @staticmethod
    def forward(contraction, scale, *tensors):
        return values(contraction, scale, *tensors)

    setup_context = staticmethod(_save)
    backward = staticmethod(_backward)

    @staticmethod
    def vmap(info, in_dims, contraction, scale, x, weight, bias, *cores):
        if all(dim is None for dim in in_dims[3:]):
            x, closed = x.movedim(in_dims[2], 0), contraction.spec.closed
            contraction = contraction_for(x, cores, closed, weight is not None, contraction.strategy)
            return contract_eagerly(contraction, scale, x, weight, bias, *cores), 0
        mapped = torch.vmap(partial(compose, contraction, scale), in_dims[2:], randomness=info.randomness)
        return mapped(x, weight, bias, *cores), 0


def _differentiable_gradients(
    contraction: Contraction,
    scale: float,
    needed: Sequence[bool],
    g: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor | None,
    *cores: torch.Tensor,
) -> list[torch.Tensor | None]:
    """Like `engine.gradients`, but the gradients can be differentiated again."""
    operands: list = [x, weight, *cores]
    positions = [k for k, need in enumerate(needed) if need]

    def function(*some):
        x, weight, *cores = (some[positions.index(k)] if k in positions else t for k, t in enumerate(operands))
        return compose(contraction, scale, x, weight, None, *cores)

    backpropagate = torch.func.vjp(function, *(operands[k] for k in positions))[1]
    found = dict(zip(positions, backpropagate(g), strict=True))
    return [found.get(k) for k in range(len(operands))]


# torch.compile sees two operations, which choose their plans when they run, for the rows they are given.


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
    contraction = contraction_for(x, cores, closed, weight is not None, decode_strategy(strategy))
    return values(contraction, scale, x, weight, bias, *cores)


@contract.register_fake
def _(x, weight, bias, cores, closed, scale, strategy):
    return x.new_empty(*x.shape[:-1], math.prod(core.shape[2] for core in cores))


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
    contraction = contraction_for(x, cores, closed, weight is not None, decode_strategy(strategy))
    found = gradients(contraction, scale, needed, g, x, weight, *cores)
    return [gradient for gradient in found if gradient is not None]


@contract_backward.register_fake
def _(g, x, weight, cores, closed, scale, strategy, needed):
    return [t.new_empty(t.shape) for t, need in zip((x, weight, *cores), needed, strict=True) if need]


def _save_compiled(ctx, inputs, output):
    x, weight, _, cores, *ctx.settings = inputs
    ctx.save_for_backward(x, weight, *cores)


def _compiled_backward(ctx, g):
    x, weight, *cores = ctx.saved_tensors
    need_x, need_weight, need_bias, need_cores, *_ = ctx.needs_input_grad
    needed = [need_x, need_weight, *need_cores]
    found = iter(contract_backward(g, x, weight, cores, *ctx.settings, needed))
    dx, d_weight, *d_cores = (next(found) if need else None for need in needed)
    d_bias = g.reshape(-1, g.shape[-1]).sum(0) if need_bias else None
    return dx, d_weight, d_bias, d_cores, None, None, None


contract.register_autograd(_compiled_backward, setup_context=_save_compiled)
