"""The contraction as one node of the graph: it saves x, the weight, the cores, and states that are small beside x."""

from collections.abc import Sequence

import torch

from t3nsor.autocast import without_autocast
from t3nsor.contraction.engine import Contraction, Operands, Schedule, Training, compose, gradients, values
from t3nsor.contraction.torch_internals import in_transform, is_legacy_batched


def contract_eagerly(contraction: Contraction, operands: Operands) -> torch.Tensor:
    """x weight^T + scale * x W + bias, differentiable any number of times, in both modes, and under torch.func."""
    # Transforms of torch.func and traces have no place for a node; nor could its jvp be differentiated in forward mode.
    if in_transform():
        return compose(contraction.forward, operands)
    if not torch.is_grad_enabled():
        few = contraction.spec.few_rows
        return compose(contraction.forward, operands) if few else values(contraction.forward, operands)[0]
    core_gradients = any(core.requires_grad for core in operands.cores)
    return contract_training(contraction.training(operands.x.requires_grad, core_gradients), operands)


def contract_training(training: Training, operands: Operands) -> torch.Tensor:
    """`contract_eagerly` with the schedules chosen."""
    if training.composes:
        return compose(training.forward, operands)
    x, weight, bias, cores, scale = operands
    return _ContractionNode.apply(training, scale, x, weight, bias, *cores)


class _ContractionNode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, training, scale, x, weight, bias, *cores):
        y, kept = values(training.forward, Operands(x, weight, bias, cores, scale), training.keeps)
        ctx.settings = training, scale
        ctx.save_for_backward(x, weight, *cores, *kept)
        return y

    @staticmethod
    def backward(ctx, g):
        need_x, need_weight, need_bias, *need_cores = ctx.needs_input_grad[2:]
        (training, scale), (x, weight, *others) = ctx.settings, ctx.saved_tensors
        cores, kept = others[: len(need_cores)], others[len(need_cores) :]
        operands, needed = Operands(x, weight, None, cores, scale), (need_x, need_weight, *need_cores)
        with without_autocast(x.device):
            if torch.is_grad_enabled() or is_legacy_batched(g):
                dx, d_weight, *d_cores = _differentiable_gradients(training.forward, operands, needed, g)
            else:
                dx, d_weight, *d_cores = gradients(training.backward, operands, needed, kept, g)
        d_bias = g.reshape(-1, g.shape[-1]).sum(0) if need_bias else None
        return None, None, dx, d_weight, d_bias, *d_cores


def _differentiable_gradients(
    schedule: Schedule, operands: Operands, needed: Sequence[bool], g: torch.Tensor
) -> list[torch.Tensor | None]:
    """Like `engine.gradients`, but the gradients can be differentiated again."""
    with torch.enable_grad():
        # Views, because one operand may have been computed from another.
        views: list = [None if t is None else t.view_as(t) for t in (operands.x, operands.weight, *operands.cores)]
        y = compose(schedule, Operands(views[0], views[1], None, views[2:], operands.scale))
        wanted = [t for t, need in zip(views, needed, strict=True) if need]
        found = iter(torch.autograd.grad(y, wanted, g, create_graph=True))
    return [next(found) if need else None for need in needed]
