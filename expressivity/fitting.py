"""Fits members of a space to targets and measures the errors that remain."""

import copy
import math
import warnings
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.devices import stack_limits
from expressivity.errors import ExpressivityError
from expressivity.frozen_base import share_frozen
from expressivity.looped import fit_one
from expressivity.polishing import polished_error
from expressivity.randomness import seed_of, seeded
from expressivity.recipe import Recipe
from expressivity.scoring import Scale, relative_errors, scale_of
from expressivity.sizes import bytes_of_step
from expressivity.spaces import ArchitecturalSpace
from expressivity.stacked import fill, fit_stack, why_not_stacked
from expressivity.targets import Targets, dtype_of, in_dtype_of
from expressivity.truth import closed_form_errors


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
    lr: initial learning rate; None: a routine of the user's own has none.
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
    lr: float | None
    stack_size: int | None = None
    fast: bool = True
    obstacle: str | None = None
    bytes_each: int = 1

    def probe(self, targets: Targets) -> None:
        """Find out, on a few rows of a target, whether networks can be fitted together, and their memory use."""
        if not self.fast:
            self.obstacle = "fast is false"
        elif not self.has_recipe:
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
    def has_recipe(self) -> bool:
        """Whether the built-in routine fits, which knows a learning rate and a budget."""
        return self.space.at("train", self.index) is None

    @property
    def at_once(self) -> int:
        """Number of networks fitted together."""
        if self.obstacle:
            return 1
        if self.stack_size is not None:
            return self.stack_size
        networks, limit = stack_limits(self.device)
        return max(1, min(networks, limit // self.bytes_each))

    def fit(self, targets: Targets, numbers: range, budget: float = 1.0) -> Errors:
        """Fit `restarts` networks to each target.

        numbers: the numbers of the targets, from which the seeds of the fits are derived.
        budget: share of the steps to make.

        Raises ExpressivityError if a fit fails, or the criterion is unusable.
        """
        scales, recipe = self._scales(targets), replace(self.recipe, budget=budget)
        found = [self._fit_and_measure(part, targets, scales, recipe) for part in self._parts(numbers)]
        return Errors(*(torch.cat(part).view(len(numbers), self.restarts) for part in zip(*found, strict=True)))

    def fit_with(self, rates: list[float], targets: Targets, numbers: range, budget: float) -> torch.Tensor:
        """Errors on fresh rows, (rates, targets, restarts), of fits with several learning rates; see `fit`."""
        scales, starts = self._scales(targets), self._starts(numbers)
        at_once = self.at_once // len(starts)
        if not at_once:
            fits = [replace(self, lr=lr).fit(targets, numbers, budget).fresh for lr in rates]
            return torch.stack(fits)
        recipe = replace(self.recipe, budget=budget)
        parts = [tuple(rates[k : k + at_once]) for k in range(0, len(rates), at_once)]
        found = [self._fit_and_measure(starts * len(part), targets, scales, recipe, part)[0] for part in parts]
        return torch.cat(found).view(len(rates), len(numbers), self.restarts)

    def polish(self, targets: Targets, numbers: range) -> torch.Tensor:
        """Errors on fresh rows, (targets, restarts), of fits with which another optimiser has gone on.

        They are nan where a fit diverged. They are, too, where it cannot go on, as with a function that a routine of
        the user's own returned, and a warning says why. Raises ExpressivityError as `fit` does.
        """
        found, obstacles = [], set()
        for part in self._parts(numbers):
            networks, owner = self._begun(part)
            model = self._fit_networks(networks, targets, owner, part[0], self.recipe)
            for k, (place, number, restart) in enumerate(part):
                make = partial(self._copy, model, k, number, restart)
                try:
                    found.append(polished_error(make, targets.only(place), self.criterion))
                except Exception as error:  # a user's module may raise anything
                    found.append(math.nan)
                    if not isinstance(error, FloatingPointError):  # of a fit that diverged
                        obstacles.add(type_and_line(error))
        if obstacles:
            where = self.space.where(self.index)
            reason = (
                f"another optimiser cannot go on with its fits, whose floor and movement alone decide: {min(obstacles)}"
            )
            warnings.warn(f"{where}: {reason}", stacklevel=4)
        return torch.tensor(found, dtype=torch.float64).view(len(numbers), self.restarts)

    def _copy(self, model, place: int, number: int, restart: int) -> nn.Module:
        """A new network with fitted parameters; the old one may hold what cannot be copied, or be frozen by now."""
        return model.copied_to(self.network(number, restart), place)

    def _parts(self, numbers: range) -> list[list[tuple[int, int, int]]]:
        """The starts of fits in parts of those that are fitted together."""
        starts = self._starts(numbers)
        return [starts[k : k + self.at_once] for k in range(0, len(starts), self.at_once)]

    def _starts(self, numbers: range) -> list[tuple[int, int, int]]:
        """The place and number of the target and the number of the restart, of each fit."""
        return [(place, number, restart) for place, number in enumerate(numbers) for restart in range(self.restarts)]

    def _scales(self, targets: Targets) -> tuple[Scale, Scale]:
        return scale_of(targets.fresh_y, self.criterion), scale_of(targets.y, self.criterion)

    def optima(self, targets: Targets, numbers: range) -> torch.Tensor:
        """Errors (targets, 1) of the best members of the family for the rows of the fits; (0, 1) if not known."""
        if type(self.criterion) is not nn.MSELoss:
            return torch.empty(0, 1, dtype=torch.float64)
        found = []
        for place, number in enumerate(numbers):
            rows = (part[place] for part in (targets.x, targets.y, targets.fresh_x, targets.fresh_y))
            found.append(closed_form_errors(self.network(number, 0), *rows))
            if found[0] is None:
                return torch.empty(0, 1, dtype=torch.float64)
        return torch.tensor(found, dtype=torch.float64)[:, None]

    @property
    def recipe(self) -> Recipe:
        return Recipe.of(self.space, self.index, self.criterion, seed_of(self.seed, self.index), self.lr)

    def network(self, number: int, restart: int) -> nn.Module:
        """The initial network of a fit; families of the same class draw the same one."""
        with seeded("start", self.seed, self.index, number, restart):
            network = self.space.build(self.index)
        if self.space.frozen_base:
            share_frozen(self.space, self.index, network, self.seed, self.index, number)
        return network

    def _fit_and_measure(self, starts, targets: Targets, scales: tuple[Scale, Scale], recipe: Recipe, rates=()):
        """Relative errors of N fits, (N,) on fresh rows and (N,) on the rows of the fit."""
        networks, owner = self._begun(starts)
        model = self._fit_networks(networks, targets, owner, starts[0], recipe, rates)
        pairs = zip((targets.fresh_x, targets.x), (targets.fresh_y, targets.y), scales, strict=True)
        measure = partial(relative_errors, model, owner=owner, criterion=self.criterion, at_once=recipe.mini_batch_size)
        try:
            return tuple(measure(in_dtype_of(networks[0], x), y, scale=scale) for x, y, scale in pairs)
        except Exception as error:  # a user's module, routine or criterion may raise anything
            where = self.space.where(self.index)
            raise ExpressivityError(f"{where}: evaluating a fitted network failed: {type_and_line(error)}") from error

    def _begun(self, starts) -> tuple[list[nn.Module], torch.Tensor]:
        """The initial networks of N fits, and (N,), the places of their targets."""
        networks = [self.network(number, restart) for _, number, restart in starts]
        return networks, torch.tensor([place for place, _, _ in starts], device=self.device)

    def _fit_networks(self, networks: list[nn.Module], targets: Targets, owner: torch.Tensor, key, recipe, rates=()):
        """The fitted networks as one function, (N, rows, ..) -> (N, rows, ..); key: of dropout and the like."""
        where, x, y = self.space.where(self.index), in_dtype_of(networks[0], targets.x), targets.y
        y = y.to(dtype_of(networks[0]))
        try:
            if not self.obstacle:
                with seeded("fit", self.seed, self.index, *key):
                    return fit_stack(networks, x, y, owner, recipe, rates)
            routine = self.space.at("train", self.index) or partial(fit_one, recipe=recipe)
            copies = x[owner[0]].clone(), y[owner[0]].clone()  # a routine may modify them in place
            with seeded("fit", self.seed, self.index, *key):
                fitted = routine(networks[0].to(self.device), *copies)
        except Exception as error:  # a user's module or routine may raise anything
            raise ExpressivityError(f"{where}: fitting a network failed: {type_and_line(error)}") from error
        if not callable(fitted):
            raise ExpressivityError(f"{where}: train returned {fitted!r}; it must return the fitted network")
        return _Single(fitted)


class _Single:
    """A single network, or a function, with the interface of a Stack."""

    def __init__(self, network):
        self.only = network.eval() if isinstance(network, nn.Module) else network

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.only(x[0])[None]

    def copied_to(self, network: nn.Module, place: int) -> nn.Module:
        """A network like the fitted one: `network`, if its tensors are the same. Raises TypeError for a function."""
        if not isinstance(self.only, nn.Module):
            raise TypeError("train returned a function, not a module with parameters")
        fitted = dict(self.only.named_parameters()) | dict(self.only.named_buffers())
        own = dict(network.named_parameters()) | dict(network.named_buffers())
        if {name: each.shape for name, each in own.items()} != {name: each.shape for name, each in fitted.items()}:
            return copy.deepcopy(self.only)
        fill(network, fitted)
        return network
