"""Another optimiser goes on from where a fit has come to rest: L-BFGS, on all rows and in double precision.

An error that no longer moves may still be far from its minimum, as after gradient descent in badly scaled parameters.
What L-BFGS takes from it then was left by the first optimiser. Liu and Nocedal 1989, "On the limited memory BFGS method
for large scale optimization".
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import nn

from expressivity.devices import where_float64_is
from expressivity.scoring import ROWS_AT_ONCE, Scale
from expressivity.sizes import bytes_of_step
from expressivity.targets import Targets

TARGETS, RESTARTS = 12, 2  # whose fits are polished, at most
STEPS, MEMORY = 100, 20
MOST_BYTES = 2**30  # that a pass may keep


def polished_error(network, target: Targets, criterion: Callable, scales: tuple[Scale, Scale], place: int) -> float:
    """The relative error on fresh rows that L-BFGS leaves.

    network: a fitted network; it is left unchanged.
    target: the target to which it was fitted.
    scales: of several targets on fresh rows and on those of the fit; place: of this one among them.

    Returns nan for a function without parameters, and for a network that does not work in float64.
    """
    if not isinstance(network, nn.Module):
        return math.nan
    rows = (target.x, target.y, target.fresh_x, target.fresh_y)
    x, y, fresh_x, fresh_y = (_wide(where_float64_is(part[0])) for part in rows)
    fresh, own = ((scale.perfect[place].item(), scale.constant[place].item()) for scale in scales)

    def relative(output: torch.Tensor, wanted: torch.Tensor, perfect: float, constant: float) -> torch.Tensor:
        return (criterion(output, wanted) - perfect) / (constant - perfect)

    try:
        network = polished(network, x, y, lambda output, wanted: relative(output, wanted, *own))
        with torch.no_grad():
            output = torch.cat([network(part.clone()) for part in fresh_x.split(ROWS_AT_ONCE)])
            return relative(output, fresh_y, *fresh).item()
    except Exception:  # a user's module may raise anything
        return math.nan


def polished(network: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Callable) -> nn.Module:
    """A copy of a network, in float64 and evaluation mode, whose loss is smaller, or at least not larger.

    x: (rows, *input_size), the inputs of the fit, in float64 unless they are tokens.
    y: (rows, *output_size) in float64.
    loss: loss(output, y), a scalar, the mean over rows.

    Raises whatever the network raises.
    """
    network = copy.deepcopy(network).to(x.device).double().eval()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = torch.optim.LBFGS(
        parameters,
        max_iter=STEPS,
        history_size=MEMORY,
        tolerance_grad=1e-9,
        tolerance_change=1e-12,
        line_search_fn="strong_wolfe",
    )
    at_once = max(1, MOST_BYTES // bytes_of_step(network, x[:1].clone()))
    parts = list(zip(x.split(at_once), y.split(at_once), strict=True))

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        losses = []
        for inputs, outputs in parts:
            losses.append(loss(network(inputs.clone()), outputs) * len(inputs) / len(x))
            losses[-1].backward()
        return torch.stack(losses).sum().detach()

    if not optimizer.step(step) >= step():  # where it began and where it ended; nan is not, either
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
    return network


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x
