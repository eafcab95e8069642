"""The contraction as one node of the graph: it saves x, the weight, the cores, and states that are small beside x."""

import math
from collections.abc import Sequence

import torch

from t3nsor.autocast import without_autocast
from t3nsor.contraction.engine import Contraction, Schedule, compose, gradients, values
from t3nsor.contraction.measuring import contraction_of
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
    # Transforms of torch.func and traces have no place for a node; nor could its jvp be differentiated in forward mode.
    if in_forward_mode() or in_functorch_transform() or torch.jit.is_tracing():
        return compose(contraction.forward, scale, x, weight, bias, *cores)
    if not torch.is_grad_enabled():
        if contraction.spec.few_rows:
            return compose(contraction.forward, scale, x, weight, bias, *cores)
        return values(contraction.forward, scale, x, weight, bias, *cores)[0]
    training = contraction.training(x.requires_grad, any(core.requires_grad for core in cores))
    if training.composes:
        return compose(training.forward, scale, x, weight, bias, *cores)
    return _ContractionNode.apply(training, scale, x, weight, bias, *cores)


class _ContractionNode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, training, scale, x, weight, bias, *cores):
        y, kept = values(training.forward, scale, x, weight, bias, *cores, keep=training.keeps)
        ctx.settings = training, scale
        ctx.save_for_backward(x, weight, *cores, *kept)
        return y

    @staticmethod
    def backward(ctx, g):
        need_x, need_weight, need_bias, *need_cores = ctx.needs_input_grad[2:]
        (training, scale), (x, weight, *others) = ctx.settings, ctx.saved_tensors
        cores, kept = others[: len(need_cores)], others[len(need_cores) :]
        needed = need_x, need_weight, *need_cores
        with without_autocast(x.device):
            if torch.is_grad_enabled() or is_legacy_batched(g):
                dx, d_weight, *d_cores = _differentiable_gradients(
                    training.forward, scale, needed, g, x, weight, *cores
                )
            else:
                dx, d_weight, *d_cores = gradients(training.backward, scale, needed, kept, g, x, weight, *cores)
        d_bias = g.reshape(-1, g.shape[-1]).sum(0) if need_bias else None
        return None, None, dx, d_weight, d_bias, *d_cores


def _differentiable_gradients(
    schedule: Schedule,
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
        return compose(schedule, scale, x, weight, None, *cores)

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
    contraction = contraction_of(x, cores, closed, weight is not None, decode_strategy(strategy), "least")
    with without_autocast(x.device):
        return values(contraction.forward, scale, x, weight, bias, *cores)[0]


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
    contraction = contraction_of(x, cores, closed, weight is not None, decode_strategy(strategy), "least")
    need_x, _, *need_cores = needed
    with without_autocast(x.device):
        schedule = contraction.training(need_x, any(need_cores)).backward
        found = gradients(schedule, scale, needed, (), g, x, weight, *cores)
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
