"""Targets drawn from a space, and the rows on which they are imitated."""

from dataclasses import dataclass

import torch

from common.errors import type_and_line
from expressivity.errors import ExpressivityError
from expressivity.randomness import seeded
from expressivity.spaces import ArchitecturalSpace

MOST_ATTEMPTS = 100


@dataclass
class Targets:
    """Several targets with their data: x (targets, rows, *input_size), y (targets, rows, *output_size).

    redrawn: how many networks were drawn and left since their outputs are all the same.
    """

    x: torch.Tensor
    y: torch.Tensor
    fresh_x: torch.Tensor
    fresh_y: torch.Tensor
    redrawn: int


@dataclass(frozen=True)
class Source:
    """Where targets come from: the members of a size of `space`, and inputs from `law`."""

    space: ArchitecturalSpace
    index: int
    law: object
    fresh_rows: int
    seed: int
    device: torch.device

    def draw(self, numbers: range) -> Targets:
        """The targets with these numbers: the same whenever they are drawn, alone or with others."""
        rows = self.space.rows(self.index)
        drawn = [self._draw(number, rows) for number in numbers]
        x, y = (torch.stack([each[k] for each in drawn]).to(self.device) for k in (0, 1))
        parts = x[:, :rows], y[:, :rows], x[:, rows:], y[:, rows:]
        return Targets(*parts, redrawn=sum(each[2] for each in drawn))

    def _draw(self, number: int, rows: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        for attempt in range(MOST_ATTEMPTS):
            with seeded("target", self.seed, self.index, number, attempt):
                x = sampled(self.law, rows + self.fresh_rows, self.space, self.index)
                y = outputs(self.space, self.index, self.space.build(self.index), x)
            if varies(y[:rows]) and varies(y[rows:]):
                return x, y, attempt
        raise ExpressivityError(
            f"{self.space.where(self.index)}: {MOST_ATTEMPTS} targets in a row have the same output for all inputs; "
            "nothing is to be imitated"
        )


def sampled(law, rows: int, space: ArchitecturalSpace, index: int) -> torch.Tensor:
    """Inputs (rows, *input_size) from `law`. ExpressivityError if its samples have another shape or are not finite."""
    where = space.where(index)
    shape, own = (rows, *space.input_size), (*getattr(law, "batch_shape", ()), *getattr(law, "event_shape", ()))
    try:
        x = law.sample(shape[: len(shape) - len(own)])
    except Exception as error:
        raise ExpressivityError(f"{where}: the law {law} cannot be sampled: {type_and_line(error)}") from error
    if not isinstance(x, torch.Tensor) or tuple(x.shape) != shape:
        got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        raise ExpressivityError(
            f"{where}: the law {law} gives {got} for {rows} inputs; the input_size asks for {shape}"
        )
    if not torch.isfinite(x).all():
        raise ExpressivityError(f"{where}: the law {law} gives inputs that are not finite")
    return x


def outputs(space: ArchitecturalSpace, index: int, network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What `network`, of this space and size, makes of x, in evaluation mode. ExpressivityError, naming both."""
    try:
        with torch.no_grad():
            y = network.eval()(in_dtype_of(network, x).clone())  # it may work in place
    except Exception as error:  # whatever a user's module raises
        raise ExpressivityError(
            f"{space.where(index)}: the network does not take inputs of size {tuple(x.shape[1:])}: "
            f"{type_and_line(error)}"
        ) from error
    if not isinstance(y, torch.Tensor) or y.shape[:1] != x.shape[:1]:
        got = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        raise ExpressivityError(f"{space.where(index)}: of {len(x)} rows the network makes {got}, no tensor (rows, ..)")
    if not y.is_floating_point():
        raise ExpressivityError(
            f"{space.where(index)}: the network gives {y.dtype}; its outputs must be floating-point"
        )
    if not torch.isfinite(y).all():
        raise ExpressivityError(f"{space.where(index)}: a network drawn from its law gives outputs that are not finite")
    return y


def in_dtype_of(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """x, if it is floating-point, in the precision of the network's parameters."""
    return x.to(dtype_of(network)) if x.is_floating_point() else x


def dtype_of(network: torch.nn.Module) -> torch.dtype:
    """The precision of the network's parameters, as its first floating-point one has it."""
    found = (parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    return next(found, torch.get_default_dtype())


def varies(y: torch.Tensor) -> bool:
    """Whether outputs (rows, ..) differ by more than rounding."""
    wide = y.double()
    rounding = 8 * torch.finfo(y.dtype).eps
    return bool(wide.var(0, correction=0).mean() > rounding**2 * wide.square().mean())
