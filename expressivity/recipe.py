"""What the built-in routine does, whether networks are fitted one by one or all at once."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from expressivity.randomness import seeded
from expressivity.spaces import ArchitecturalSpace


@dataclass(frozen=True)
class Recipe:
    """How a network is fitted to rows of inputs and outputs."""

    lr: float
    epoch: int
    mini_batch_size: int
    optimizer: Callable[..., torch.optim.Optimizer]
    grad_clamp: float | None
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    seed: int  # of the order of the rows

    @classmethod
    def of(cls, space: ArchitecturalSpace, index: int, criterion, seed: int) -> "Recipe":
        keys = ("lr", "epoch", "mini_batch_size", "optimizer", "grad_clamp")
        return cls(*(space.at(key, index) for key in keys), criterion, seed)

    def epochs(self, rows: int) -> Iterator[tuple[torch.Tensor, list[tuple[float, slice]]]]:
        """Of each epoch the order of the rows, and of each step the learning rate and its part of that order.

        The order depends on the seed alone, so that a network sees the same alone and among others. The rate falls to
        0: what is asked for is the error that remains, and at a constant rate that would be the optimiser's noise.
        """
        starts = range(0, rows, self.mini_batch_size)
        for epoch in range(self.epoch):
            with seeded("order", self.seed, epoch):
                order = torch.randperm(rows)
            done = [(epoch + number / len(starts)) / self.epoch for number in range(len(starts))]
            rates = [self.lr * (1 + math.cos(math.pi * part)) / 2 for part in done]
            parts = [slice(start, start + self.mini_batch_size) for start in starts]
            yield order, list(zip(rates, parts, strict=True))
