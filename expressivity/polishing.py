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
from expressivity.scoring import Scale
from expressivity.targets import Targets

TARGETS, RESTARTS = 12, 2  # whose fits are polished, at most
STEPS, MEMORY = 100, 20


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
            return relative(network(fresh_x.clone()), fresh_y, *fresh).item()
    except Exception:  # a user's module may raise anything
        return math.nan


def polished(network: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Callable) -> nn.Module:
    """A copy of a network, in float64 and evaluation mode, whose loss is smaller, or at least not larger.

    x: (rows, *input_size), the inputs of the fit, in float64 unless they are tokens.
    y: (rows, *output_size) in float64.
    loss: loss(output, y), a scalar.

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

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(network(x.clone()), y).sum()
        value.backward()
        return value

    first = optimizer.step(step)
    with torch.no_grad():
        if not loss(network(x.clone()), y) <= first:  # nan is not, either
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
    return network


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x.double() if x.is_floating_point() else x
