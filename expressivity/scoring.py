"""Errors of fitted networks: 0 for a perfect imitation, 1 for the best constant, whatever the criterion."""

import math
from typing import NamedTuple

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.devices import where_float64_is
from expressivity.errors import ExpressivityError

ROWS_AT_ONCE = 64  # rows per forward pass in evaluation, or a mini-batch if that is larger
FACTORS = 1.0, 0.9, 1.1  # of the target, which must not be beaten by its neighbours
STEPS = 100  # at most, to find the best constant of a criterion without a known one
STATISTIC_OF = {nn.MSELoss: lambda y: y.mean(0), nn.L1Loss: lambda y: y.quantile(0.5, dim=0)}


class Scale(NamedTuple):
    """What an error is relative to, each (targets,) in float64.

    perfect: the criterion between the target and itself.
    constant: the criterion between the best constant and the target.
    """

    perfect: torch.Tensor
    constant: torch.Tensor


@torch.no_grad()
def relative_errors(
    model, x: torch.Tensor, y: torch.Tensor, owner: torch.Tensor, criterion, scale: Scale, at_once: int
):
    """(criterion(output, y) - perfect) / (constant - perfect) of each fitted network.

    model: (N, rows, *input_size) -> (N, rows, *output_size).
    x, y: (targets, rows, ..).
    owner: (N,), the index of the target to which each network was fitted.
    scale: of these targets on these rows.
    at_once: number of rows per forward pass.

    Returns (N,) in float64, nan where an error is not finite. Raises ValueError on a shape mismatch.
    """
    output = torch.cat([model(part[owner]) for part in x.split(max(ROWS_AT_ONCE, at_once), dim=1)], dim=1)
    if output.shape[1:] != y.shape[1:]:
        raise ValueError(f"shape mismatch: output {tuple(output.shape[2:])} and target {tuple(y.shape[2:])} per row")
    output, wanted = where_float64_is(output), where_float64_is(y).double()
    pairs = zip(output, owner.tolist(), strict=True)
    # One copy at the end: reading every number would wait for the device once for each network.
    losses = torch.stack([criterion(each.double(), wanted[place]).reshape(()) for each, place in pairs])
    perfect, constant = (each[owner.cpu()] for each in scale)
    found = (losses.to("cpu", torch.float64) - perfect) / (constant - perfect)
    return torch.where(found.isfinite(), found, math.nan)


def scale_of(y: torch.Tensor, criterion) -> Scale:
    """What errors on the targets y, (targets, rows, ..), are relative to.

    Raises ExpressivityError if the criterion fails, is no scalar, or is not smallest where the output is the target.
    """
    wanted = where_float64_is(y).double()
    try:
        with torch.no_grad():
            perfect, *others = (
                torch.stack([_scalar(criterion(factor * each, each)) for each in wanted]).cpu() for factor in FACTORS
            )
        constant = torch.stack([_loss_of_best_constant(each, criterion) for each in wanted]).cpu()
    except ExpressivityError:
        raise
    except Exception as error:  # a user's criterion may raise anything
        raise ExpressivityError(f"criterion {criterion} failed on the targets: {type_and_line(error)}") from error
    margin = 1e-12 * perfect.abs()
    if not (constant - perfect > margin).all() or not all((other >= perfect - margin).all() for other in others):
        raise ExpressivityError(
            f"criterion {criterion} is not smallest where the output equals the target: a constant or another output "
            "has a smaller one; for logits there is cross_entropy"
        )
    return Scale(perfect, constant)


def _loss_of_best_constant(y: torch.Tensor, criterion) -> torch.Tensor:
    """The criterion between y, (rows, ..), and the constant for which it is smallest."""
    known = STATISTIC_OF.get(type(criterion))
    if known is not None:
        return _scalar(criterion(known(y).expand_as(y), y))
    starts = [statistic(y) for statistic in STATISTIC_OF.values()]
    with torch.no_grad():
        losses = [_scalar(criterion(start.expand_as(y), y)) for start in starts]
    best = min(zip(losses, range(len(starts)), strict=True))
    constant = starts[best[1]].clone().requires_grad_()
    optimizer = torch.optim.LBFGS([constant], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = _scalar(criterion(constant.expand_as(y), y))
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        found = _scalar(criterion(constant.expand_as(y), y))
    return torch.minimum(found, best[0]) if found.isfinite() else best[0]


def _scalar(value: torch.Tensor) -> torch.Tensor:
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ExpressivityError("the criterion must return one number, the mean over rows and entries")
    return value.reshape(())
