"""Another optimiser goes on from where a fit has come to rest: L-BFGS, on all rows and in double precision.

An error that no longer moves may still be far from its minimum, as after gradient descent in badly scaled parameters.
What L-BFGS takes from it then was left by the first optimiser. Liu and Nocedal 1989, "On the limited memory BFGS method
for large scale optimization".
"""

import math
from collections.abc import Callable

import torch
from torch import nn

from expressivity.devices import where_float64_is
from expressivity.scoring import ROWS_AT_ONCE, Scale, scale_of
from expressivity.sizes import bytes_of_step
from expressivity.targets import Targets

TARGETS, RESTARTS = 12, 2  # whose fits are polished, at most
STEPS, EVALUATIONS, MEMORY = 100, 125, 20
FIRST_STEPS = 1.0, 0.1, 0.01  # tried in turn while the loss becomes infinite or nan
PATIENCE, GAIN, ENOUGH = 20, 1e-6, 1e-12  # evaluations without this relative gain, or a loss, after which it ends
MOST_BYTES = 2**30  # that a pass may keep


class _End(Exception):
    """Further steps are useless."""


def polished_error(make: Callable[[], nn.Module], target: Targets, criterion: Callable) -> float:
    """The relative error on fresh rows that L-BFGS leaves.

    make: returns a new copy of the fitted network.
    target: the single target to which it was fitted.

    Any criterion is smallest where the output equals the target, and so is the mean square error, which has no kinks at
    which L-BFGS would stall. A second way minimises that first; the one with the smaller loss counts.

    Raises whatever `make` and the network raise. A network that does not work in double precision, as one with
    constants of its own, goes on in the precision of the rows.
    """
    try:
        return _error_left(make, target, criterion, wide=True)
    except RuntimeError:
        return _error_left(make, target, criterion, wide=False)


def _error_left(make: Callable[[], nn.Module], target: Targets, criterion: Callable, wide: bool) -> float:
    rows = [where_float64_is(part[0]) for part in (target.x, target.y, target.fresh_x, target.fresh_y)]
    x, y, fresh_x, fresh_y = (part.double() if wide and part.is_floating_point() else part for part in rows)
    ways = [[criterion]] if type(criterion) is nn.MSELoss else [[criterion], [nn.MSELoss(), criterion]]
    found = []
    for way in ways:
        network = make().to(x.device).eval()
        network = network.double() if wide else network
        left = [polish(network, x, y, relative(each, y)) for each in way][-1]
        with torch.no_grad():
            output = torch.cat([network(part.clone()) for part in fresh_x.split(ROWS_AT_ONCE)])
            found.append((left, relative(criterion, fresh_y)(output, fresh_y).item()))
    return min(found)[1]


def relative(criterion: Callable, y: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The criterion, as (output, target), from 0 at the targets y, (rows, ..), to 1 at the best constant."""
    perfect, constant = (each.item() for each in Scale(*scale_of(y[None], criterion)))
    return lambda output, wanted: (criterion(output, wanted) - perfect) / (constant - perfect)


def polish(network: nn.Module, x: torch.Tensor, y: torch.Tensor, loss: Callable) -> float:
    """Minimise a loss further, in place, and return the smallest one, which is no larger than at the beginning.

    x: (rows, *input_size), the inputs of the fit.
    y: (rows, *output_size).
    loss: loss(output, target), the mean over rows.

    Raises whatever the network raises, and FloatingPointError if the loss is not finite at the beginning.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    one, two = (bytes_of_step(network, x[:rows].clone()) for rows in (1, 2))
    at_once = max(1, MOST_BYTES // max(1, two - one))
    parts = list(zip(x.split(at_once), y.split(at_once), strict=True))
    best, kept, idle = math.inf, [], 0

    def step() -> torch.Tensor:
        nonlocal best, kept, idle
        network.zero_grad()
        value = torch.zeros((), dtype=y.dtype, device=y.device)
        for inputs, outputs in parts:
            part = loss(network(inputs.clone()), outputs) * (len(inputs) / len(x))
            part.backward()
            value += part.detach()
        if not value.isfinite():
            raise FloatingPointError
        idle = 0 if value.item() < (1 - GAIN) * best else idle + 1
        if value.item() < best:
            best, kept = value.item(), [parameter.detach().clone() for parameter in parameters]
        if best < ENOUGH or idle > PATIENCE:
            raise _End
        return value

    for lr in FIRST_STEPS:
        optimizer = torch.optim.LBFGS(parameters, lr, STEPS, EVALUATIONS, 0.0, 0.0, MEMORY, "strong_wolfe")
        try:
            optimizer.step(step)
            break
        except _End:
            break
        except FloatingPointError:  # in the line search, from which a shorter first step may lead away
            if not kept:
                raise
            _set(parameters, kept)
            idle = 0
    _set(parameters, kept)
    return best


@torch.no_grad()
def _set(parameters: list[torch.Tensor], values: list[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.copy_(value)
