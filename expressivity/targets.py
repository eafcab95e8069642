"""Random targets drawn from a space, with the data on which they are imitated."""

from dataclasses import dataclass

import torch

from common.errors import type_and_line
from expressivity.errors import ExpressivityError
from expressivity.frozen_base import share_frozen
from expressivity.randomness import seeded
from expressivity.spaces import ArchitecturalSpace

MAX_ATTEMPTS = 100


@dataclass
class Targets:
    """Several targets with their data.

    x: inputs of the fit, (targets, rows, *input_size).
    y: outputs of the targets for them, (targets, rows, *output_size).
    fresh_x, fresh_y: the same for the evaluation.
    redrawn: number of constant networks that were rejected and drawn again.
    """

    x: torch.Tensor
    y: torch.Tensor
    fresh_x: torch.Tensor
    fresh_y: torch.Tensor
    redrawn: int

    def first(self, count: int) -> "Targets":
        """The first `count` targets."""
        parts = (self.x, self.y, self.fresh_x, self.fresh_y)
        return Targets(*(part[:count] for part in parts), redrawn=self.redrawn)

    def only(self, place: int) -> "Targets":
        """A single one of the targets."""
        parts = (self.x, self.y, self.fresh_x, self.fresh_y)
        return Targets(*(part[place : place + 1] for part in parts), redrawn=0)


@dataclass(frozen=True)
class Source:
    """A source of random targets.

    space, index: the space of the targets and the index of the size.
    law: distribution of the inputs.
    rows: number of rows for the fit.
    fresh_rows: number of rows for the evaluation.
    seed: seed of the draws.
    device: where to put the data.
    """

    space: ArchitecturalSpace
    index: int
    law: object
    rows: int
    fresh_rows: int
    seed: int
    device: torch.device

    def draw(self, numbers: range) -> Targets:
        """Draw the targets with these numbers; each number always gives the same target.
        Raises ExpressivityError if a network cannot be built or evaluated, or if all attempts give constant networks.
        """
        rows, drawn = self.rows, [self._draw(number) for number in numbers]
        x, y = (torch.stack([each[k] for each in drawn]).to(self.device) for k in (0, 1))
        parts = x[:, :rows], y[:, :rows], x[:, rows:], y[:, rows:]
        return Targets(*parts, redrawn=sum(each[2] for each in drawn))

    def _draw(self, number: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        rows = self.rows
        for attempt in range(MAX_ATTEMPTS):
            with seeded("target", self.seed, self.index, number, attempt):
                x = sampled(self.law, rows + self.fresh_rows, self.space, self.index)
                member = typical_member(self.space, self.index, self.seed, self.index, number)
                y = outputs(self.space, self.index, member, x)
            if varies(y[:rows]) and varies(y[rows:]):
                return x, y, attempt
        raise ExpressivityError(
            f"{self.space.where(self.index)}: {MAX_ATTEMPTS} targets in a row are constant, so there is nothing to "
            "imitate; change the architecture or its parameters"
        )


def typical_member(space: ArchitecturalSpace, index: int, *key) -> torch.nn.Module:
    """A typical member of a space: a network that starts at a special point, such as a zero update, leaves it.

    key: what the frozen base depends on if the space has one.
    """
    network = space.build(index)
    if space.frozen_base:
        share_frozen(space, index, network, *key)
    if hasattr(network, "draw_update"):
        network.draw_update()
    return network


def sampled(law, rows: int, space: ArchitecturalSpace, index: int) -> torch.Tensor:
    """Sample inputs (rows, *input_size) from `law`.

    Raises ExpressivityError, naming the space and size, if they have the wrong shape or are not finite.
    """
    where = space.where(index)
    shape, own = (rows, *space.input_size), (*getattr(law, "batch_shape", ()), *getattr(law, "event_shape", ()))
    try:
        x = law.sample(shape[: len(shape) - len(own)])
    except Exception as error:
        raise ExpressivityError(f"{where}: law {law} cannot be sampled: {type_and_line(error)}") from error
    if not isinstance(x, torch.Tensor) or tuple(x.shape) != shape:
        got = tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
        raise ExpressivityError(f"{where}: law {law} returned {got} for {rows} inputs; input_size requires {shape}")
    if not torch.isfinite(x).all():
        raise ExpressivityError(f"{where}: law {law} returned inputs that are not finite")
    return x


def outputs(space: ArchitecturalSpace, index: int, network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Outputs (rows, ..) of `network` for x, (rows, *input_size), in evaluation mode.

    Raises ExpressivityError, naming the space and size, unless they are finite floating-point tensors.
    """
    try:
        with torch.no_grad():
            y = network.eval()(in_dtype_of(network, x).clone())  # it may modify its input in place
    except Exception as error:  # a user's module may raise anything
        raise ExpressivityError(
            f"{space.where(index)}: the network does not accept inputs of size {tuple(x.shape[1:])}: "
            f"{type_and_line(error)}"
        ) from error
    if not isinstance(y, torch.Tensor) or y.shape[:1] != x.shape[:1]:
        got = tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__
        raise ExpressivityError(
            f"{space.where(index)}: the network must return a tensor (rows, ..) for {len(x)} input rows; got {got}"
        )
    if not y.is_floating_point():
        raise ExpressivityError(
            f"{space.where(index)}: the network returned {y.dtype}; its outputs must be floating-point"
        )
    if not torch.isfinite(y).all():
        raise ExpressivityError(f"{space.where(index)}: a randomly initialised network returned non-finite outputs")
    return y


def in_dtype_of(network: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Convert x, if it is floating-point, to the dtype of the network's parameters."""
    return x.to(dtype_of(network)) if x.is_floating_point() else x


def dtype_of(network: torch.nn.Module) -> torch.dtype:
    """Dtype of the network's first floating-point parameter; the default dtype if it has none."""
    found = (parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    return next(found, torch.get_default_dtype())


def varies(y: torch.Tensor) -> bool:
    """True if outputs (rows, ..) differ between rows by more than rounding errors."""
    wide = y.double()
    rounding = 8 * torch.finfo(y.dtype).eps
    return bool(wide.var(0, correction=0).mean() > rounding**2 * wide.square().mean())
