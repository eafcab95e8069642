"""Members of a space fitted to targets, and how near they come."""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.errors import ExpressivityError
from expressivity.looped import fit_one
from expressivity.randomness import seed_of, seeded
from expressivity.recipe import Recipe
from expressivity.spaces import ArchitecturalSpace, trainable_parameters
from expressivity.stacked import fit_stack, why_not_stacked
from expressivity.targets import Targets, dtype_of, in_dtype_of

MOST_STACKED = 2048  # larger stacks are no faster on a CPU
STACK_BYTES = 2**29  # of data, activations, parameters and the optimiser's state
ROWS_AT_ONCE = 64  # in evaluation, or a mini-batch if that is more


@dataclass
class Errors:
    """Relative errors (targets, restarts) on fresh rows and on the rows of the fit; nan where a fit diverged."""

    fresh: torch.Tensor
    training: torch.Tensor


@dataclass
class Fitter:
    """One size of a space, fitted to targets from several starts each."""

    space: ArchitecturalSpace
    index: int
    restarts: int
    criterion: nn.Module
    seed: int
    device: torch.device
    stack_size: int | None = None
    fast: bool = True
    obstacle: str | None = None  # why its members are fitted one by one, if they are
    bytes_each: int = 1  # what a fit of one network takes

    def probe(self, targets: Targets) -> None:
        """Find out whether networks can be fitted together, on a few rows of a target."""
        if not self.fast:
            self.obstacle = "so it is asked for"
        elif self.space.train is not None:
            self.obstacle = "by a routine of their own"
        else:
            few = slice(0, 2 * self.recipe.mini_batch_size)
            pair = [self.network(0, restart) for restart in (0, 1)]
            x = in_dtype_of(pair[0], targets.x[0, few])
            with seeded("probe", self.seed):
                y = targets.y[0, few].to(dtype_of(pair[0]))
                self.obstacle = why_not_stacked(pair, x, y, replace(self.recipe, epoch=1))
            if not self.obstacle:
                rows = (part[0] for part in (targets.x, targets.y, targets.fresh_x, targets.fresh_y))
                data = sum(part.numel() * part.element_size() for part in rows)
                self.bytes_each = 2 * data + bytes_of_step(pair[0], x[: self.recipe.mini_batch_size])  # data and a copy

    @property
    def at_once(self) -> int:
        """How many networks are fitted together."""
        if self.obstacle:
            return 1
        if self.stack_size is not None:
            return self.stack_size
        return max(1, min(MOST_STACKED, STACK_BYTES // self.bytes_each))

    def fit(self, targets: Targets, numbers: range) -> Errors:
        """Fit `restarts` networks to each target. ExpressivityError if all fits diverge."""
        starts = [(place, number, restart) for place, number in enumerate(numbers) for restart in range(self.restarts)]
        at_once = self.at_once
        found = [self._fit_some(starts[k : k + at_once], targets) for k in range(0, len(starts), at_once)]
        fresh, training = (torch.cat(parts).view(len(numbers), self.restarts) for parts in zip(*found, strict=True))
        if fresh.isnan().all():
            where = self.space.where(self.index)
            raise ExpressivityError(f"{where}: all {len(starts)} fits diverged; lower lr or grad_clamp")
        return Errors(fresh, training)

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(self.space, self.index, self.criterion, seed_of(self.seed, self.index))

    def network(self, number: int, restart: int) -> nn.Module:
        """The network from which a fit starts: the same draw for both families, if they are of the same class."""
        with seeded("start", self.seed, self.index, number, restart):
            return self.space.build(self.index)

    def _fit_some(self, starts, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """Relative errors (N,) of N fits, on fresh rows and on those of the fit."""
        networks = [self.network(number, restart) for _, number, restart in starts]
        owner = torch.tensor([place for place, _, _ in starts], device=self.device)
        x, fresh_x = (in_dtype_of(networks[0], rows) for rows in (targets.x, targets.fresh_x))
        y = targets.y.to(dtype_of(networks[0]))
        with seeded("fit", self.seed, self.index, *starts[0]):  # dropout and the like
            model = self._fitted(networks, x, y, owner)
        pairs = (fresh_x, targets.fresh_y), (x, targets.y)
        at_once = max(ROWS_AT_ONCE, self.recipe.mini_batch_size)
        try:
            return tuple(relative_errors(model, x, y, owner, self.criterion, at_once) for x, y in pairs)
        except Exception as error:  # whatever a user's module, routine or criterion raises
            where = self.space.where(self.index)
            raise ExpressivityError(f"{where}: a fitted network cannot be measured: {type_and_line(error)}") from error

    def _fitted(self, networks: list[nn.Module], x: torch.Tensor, y: torch.Tensor, owner: torch.Tensor):
        """The fitted networks as one function, (N, rows, ..) -> (N, rows, ..)."""
        where = self.space.where(self.index)
        try:
            if not self.obstacle:
                return fit_stack(networks, x, y, owner, self.recipe)
            routine = self.space.train or partial(fit_one, recipe=self.recipe)
            copies = x[owner[0]].clone(), y[owner[0]].clone()  # a routine may write to them
            fitted = routine(networks[0].to(self.device), *copies)
        except Exception as error:  # whatever a user's module or routine raises
            raise ExpressivityError(f"{where}: the fit of a network fails: {type_and_line(error)}") from error
        if not callable(fitted):
            raise ExpressivityError(f"{where}: its training routine returns {fitted!r}; it must return the network")
        return _Single(fitted)


def bytes_of_step(network: nn.Module, x: torch.Tensor) -> int:
    """Of one network: its trained parameters with gradients and two moments, and what a backward pass from x needs."""
    kept = [16 * trainable_parameters(network)]

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(x)
    return sum(kept)


class _Single:
    """One network in the form of a stack."""

    def __init__(self, network):
        self.network = network.eval() if isinstance(network, nn.Module) else network

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x[0])[None]


@torch.no_grad()
def relative_errors(
    model, x: torch.Tensor, y: torch.Tensor, owner: torch.Tensor, criterion, rows_at_once: int = ROWS_AT_ONCE
) -> torch.Tensor:
    """The criterion of each fitted network over that of the mean output: for MSE over the variance of the target.

    model: (N, rows, *input_size) -> (N, rows, *output_size); x, y: (targets, rows, ..); owner: (N,), whose target.
    Returns (N,) in float64, nan where it is not finite.
    """
    output = torch.cat([model(part[owner]) for part in x.split(rows_at_once, dim=1)], dim=1)
    if output.shape[1:] != y.shape[1:]:
        raise ValueError(f"it gives {tuple(output.shape[2:])} for each row, and the target {tuple(y.shape[2:])}")
    wanted = y.double()
    constants = [criterion(each.mean(0, keepdim=True).expand_as(each), each) for each in wanted]
    pairs = zip(output, owner.tolist(), strict=True)
    errors = [float(criterion(each.double(), wanted[place]) / constants[place]) for each, place in pairs]
    found = torch.tensor(errors, dtype=torch.float64)
    return torch.where(found.isfinite(), found, math.nan)
