"""The built-in training routine: hyperparameters, order of rows and learning rates, for single and stacked fits."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from expressivity.randomness import seeded
from expressivity.spaces import ArchitecturalSpace


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a fit.

    lr: initial learning rate.
    epoch: number of passes over the rows.
    mini_batch_size: rows per step.
    optimizer: `optimizer(parameters, lr=lr)` makes the optimiser.
    grad_clamp: bound on the absolute value of each entry of the gradient; None: no bound.
    criterion: the loss to minimise.
    seed: seed of the order of the rows.
    """

    lr: float
    epoch: int
    mini_batch_size: int
    optimizer: Callable[..., torch.optim.Optimizer]
    grad_clamp: float | None
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    seed: int

    @classmethod
    def of(cls, space: ArchitecturalSpace, index: int, criterion, seed: int) -> "Recipe":
        keys = ("lr", "epoch", "mini_batch_size", "optimizer", "grad_clamp")
        return cls(*(space.at(key, index) for key in keys), criterion, seed)

    def epochs(self, rows: int) -> Iterator[tuple[torch.Tensor, list[tuple[float, slice]]]]:
        """For each epoch, the order of the rows and a list of steps (learning rate, slice of that order).

        The order depends only on the seed, so a network sees the same batches alone and in a stack. The learning rate
        decays to 0 along a cosine: at a constant rate the remaining error would be dominated by the optimiser's noise.
        """
        starts = range(0, rows, self.mini_batch_size)
        for epoch in range(self.epoch):
            with seeded("order", self.seed, epoch):
                order = torch.randperm(rows)
            done = [(epoch + number / len(starts)) / self.epoch for number in range(len(starts))]
            rates = [self.lr * (1 + math.cos(math.pi * part)) / 2 for part in done]
            parts = [slice(start, start + self.mini_batch_size) for start in starts]
            yield order, list(zip(rates, parts, strict=True))
