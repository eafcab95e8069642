"""The contraction as torch.compile sees it: two operations, which choose their plans when they run."""

import math

import torch

from t3nsor.autocast import without_autocast
from t3nsor.contraction.engine import Operands, gradients, values
from t3nsor.contraction.measuring import contraction_of
from t3nsor.contraction.plans import decode_strategy


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
        return values(contraction.forward, Operands(x, weight, bias, cores, scale))[0]


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
        found = gradients(schedule, Operands(x, weight, None, cores, scale), needed, (), g)
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
