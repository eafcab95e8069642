"""Fits members of a space to targets and measures the errors that remain."""

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.devices import stack_limits, where_float64_is
from expressivity.errors import ExpressivityError
from expressivity.looped import fit_one
from expressivity.randomness import seed_of, seeded
from expressivity.recipe import Recipe
from expressivity.spaces import ArchitecturalSpace, trainable_parameters
from expressivity.stacked import fit_stack, why_not_stacked
from expressivity.targets import Targets, dtype_of, in_dtype_of

ROWS_AT_ONCE = 64  # rows per forward pass in evaluation, or a mini-batch if that is larger


@dataclass
class Errors:
    """Relative errors of the fits to several targets, (targets, restarts); nan where a fit diverged.

    fresh: on fresh rows.
    training: on the rows of the fit.
    """

    fresh: torch.Tensor
    training: torch.Tensor


@dataclass
class Fitter:
    """Fits one size of a space to targets, each from several initialisations.

    space, index: the space and the index of the size.
    restarts: number of fits per target.
    criterion: the loss to minimise.
    seed: seed of initialisations, order of rows and dropout.
    device: where to compute.
    stack_size: maximum number of networks fitted together; None: chosen from their memory use.
    fast: fit networks together where possible.
    obstacle: why networks are fitted one at a time; None: they are fitted together. Set by `probe`.
    bytes_each: memory that the fit of one network takes. Set by `probe`.
    """

    space: ArchitecturalSpace
    index: int
    restarts: int
    criterion: nn.Module
    seed: int
    device: torch.device
    stack_size: int | None = None
    fast: bool = True
    obstacle: str | None = None
    bytes_each: int = 1

    def probe(self, targets: Targets) -> None:
        """Find out, on a few rows of a target, whether networks can be fitted together, and their memory use."""
        if not self.fast:
            self.obstacle = "fast is false"
        elif self.space.train is not None:
            self.obstacle = "the space sets train, a training routine of its own"
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
                # The data counts twice: fitting and evaluation work on copies.
                self.bytes_each = 2 * data + bytes_of_step(pair[0], x[: self.recipe.mini_batch_size])

    @property
    def at_once(self) -> int:
        """Number of networks fitted together."""
        if self.obstacle:
            return 1
        if self.stack_size is not None:
            return self.stack_size
        networks, limit = stack_limits(self.device)
        return max(1, min(networks, limit // self.bytes_each))

    def fit(self, targets: Targets, numbers: range) -> Errors:
        """Fit `restarts` networks to each target.

        numbers: the numbers of the targets, from which the seeds of the fits are derived.

        Raises ExpressivityError if all fits diverge or one fails.
        """
        starts = [(place, number, restart) for place, number in enumerate(numbers) for restart in range(self.restarts)]
        at_once = self.at_once
        found = [self._fit_and_measure(starts[k : k + at_once], targets) for k in range(0, len(starts), at_once)]
        fresh, training = (torch.cat(parts).view(len(numbers), self.restarts) for parts in zip(*found, strict=True))
        if fresh.isnan().all():
            where = self.space.where(self.index)
            raise ExpressivityError(f"{where}: all {len(starts)} fits diverged; lower lr or grad_clamp")
        return Errors(fresh, training)

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(self.space, self.index, self.criterion, seed_of(self.seed, self.index))

    def network(self, number: int, restart: int) -> nn.Module:
        """The initial network of a fit; families of the same class draw the same one."""
        with seeded("start", self.seed, self.index, number, restart):
            return self.space.build(self.index)

    def _fit_and_measure(self, starts, targets: Targets) -> tuple[torch.Tensor, torch.Tensor]:
        """Relative errors of N fits, (N,) on fresh rows and (N,) on the rows of the fit."""
        networks = [self.network(number, restart) for _, number, restart in starts]
        owner = torch.tensor([place for place, _, _ in starts], device=self.device)
        x, fresh_x = (in_dtype_of(networks[0], rows) for rows in (targets.x, targets.fresh_x))
        y = targets.y.to(dtype_of(networks[0]))
        with seeded("fit", self.seed, self.index, *starts[0]):  # for dropout and the like
            model = self._fit_networks(networks, x, y, owner)
        pairs = (fresh_x, targets.fresh_y), (x, targets.y)
        at_once = max(ROWS_AT_ONCE, self.recipe.mini_batch_size)
        try:
            return tuple(relative_errors(model, x, y, owner, self.criterion, at_once) for x, y in pairs)
        except Exception as error:  # a user's module, routine or criterion may raise anything
            where = self.space.where(self.index)
            raise ExpressivityError(f"{where}: evaluating a fitted network failed: {type_and_line(error)}") from error

    def _fit_networks(self, networks: list[nn.Module], x: torch.Tensor, y: torch.Tensor, owner: torch.Tensor):
        """The fitted networks as one function, (N, rows, ..) -> (N, rows, ..)."""
        where = self.space.where(self.index)
        try:
            if not self.obstacle:
                return fit_stack(networks, x, y, owner, self.recipe)
            routine = self.space.train or partial(fit_one, recipe=self.recipe)
            copies = x[owner[0]].clone(), y[owner[0]].clone()  # a routine may modify them in place
            fitted = routine(networks[0].to(self.device), *copies)
        except Exception as error:  # a user's module or routine may raise anything
            raise ExpressivityError(f"{where}: fitting a network failed: {type_and_line(error)}") from error
        if not callable(fitted):
            raise ExpressivityError(f"{where}: train returned {fitted!r}; it must return the fitted network")
        return _Single(fitted)


def bytes_of_step(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes that a training step of one network takes.

    Counts trainable parameters with gradients and two moments, and the tensors that autograd saves for the backward
    pass from x.
    """
    kept = [16 * trainable_parameters(network)]

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(x)
    return sum(kept)


class _Single:
    """A single network with the interface of a Stack."""

    def __init__(self, network):
        self.network = network.eval() if isinstance(network, nn.Module) else network

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x[0])[None]


@torch.no_grad()
def relative_errors(
    model, x: torch.Tensor, y: torch.Tensor, owner: torch.Tensor, criterion, rows_at_once: int = ROWS_AT_ONCE
) -> torch.Tensor:
    """The loss of each fitted network, relative to that of the mean output; for MSE this is the target's variance.

    model: (N, rows, *input_size) -> (N, rows, *output_size).
    x, y: (targets, rows, ..).
    owner: (N,), the index of the target to which each network was fitted.
    rows_at_once: number of rows per forward pass.

    Returns (N,) in float64, nan where an error is not finite. Raises ValueError on a shape mismatch.
    """
    output = torch.cat([model(part[owner]) for part in x.split(rows_at_once, dim=1)], dim=1)
    if output.shape[1:] != y.shape[1:]:
        raise ValueError(f"shape mismatch: output {tuple(output.shape[2:])} and target {tuple(y.shape[2:])} per row")
    output, wanted = where_float64_is(output), where_float64_is(y).double()
    constants = [criterion(each.mean(0, keepdim=True).expand_as(each), each) for each in wanted]
    pairs = zip(output, owner.tolist(), strict=True)
    # One copy at the end: reading every number would wait for the device once for each network.
    errors = [criterion(each.double(), wanted[place]) / constants[place] for each, place in pairs]
    found = torch.stack([error.reshape(()) for error in errors]).to("cpu", torch.float64)
    return torch.where(found.isfinite(), found, math.nan)
