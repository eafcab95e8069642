"""The built-in training routine: hyperparameters, order of rows and learning rates, for single and stacked fits."""

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from expressivity.randomness import seeded
from expressivity.spaces import ArchitecturalSpace

SINGLE = torch.float32
FUSED = {torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD}  # with fused kernels on both CPU and CUDA


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
    budget: share of the steps that are made; the learning rate decays over these.
    """

    lr: float
    epoch: int
    mini_batch_size: int
    optimizer: Callable[..., torch.optim.Optimizer]
    grad_clamp: float | None
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    seed: int
    budget: float = 1.0

    @classmethod
    def of(cls, space: ArchitecturalSpace, index: int, criterion, seed: int, lr: float) -> "Recipe":
        keys = ("epoch", "mini_batch_size", "optimizer", "grad_clamp")
        return cls(lr, *(space.at(key, index) for key in keys), criterion, seed)

    def make_optimizer(self, parameters: list, fused: bool) -> torch.optim.Optimizer:
        """The optimiser of `parameters`; fused: by a fused kernel, if there is one and the caller chose no other form.

        Each of its groups keeps its initial learning rate as "initial_lr".
        """
        given = getattr(self.optimizer, "keywords", {})
        free = not {"fused", "foreach", "capturable", "differentiable"} & given.keys()
        fused = fused and free and unwrapped(self.optimizer) in FUSED
        optimizer = self.optimizer(parameters, lr=self.lr, **({"fused": True} if fused else {}))
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
        return optimizer

    def steps(self, rows: int) -> int:
        """Number of steps."""
        return max(1, int(self.budget * self.epoch * math.ceil(rows / self.mini_batch_size)))

    def epochs(self, rows: int) -> Iterator[tuple[torch.Tensor, list[tuple[float, slice]]]]:
        """For each epoch, the order of the rows and a list of steps (part of the initial learning rate, slice of rows).

        The order depends only on the seed, so a network sees the same batches alone and in a stack. The learning rate
        decays to 0 along a cosine: at a constant rate the remaining error would be dominated by the optimiser's noise.
        """
        parts = [slice(start, start + self.mini_batch_size) for start in range(0, rows, self.mini_batch_size)]
        total = self.steps(rows)
        for epoch, begin in enumerate(range(0, total, len(parts))):
            with seeded("order", self.seed, epoch):
                order = torch.randperm(rows)
            done = [(begin + number) / total for number in range(min(len(parts), total - begin))]
            decay = [(1 + math.cos(math.pi * part)) / 2 for part in done]
            yield order, list(zip(decay, parts, strict=False))


def set_rate(optimizer: torch.optim.Optimizer, decay: float) -> None:
    """Set the learning rate of each group to this part of its initial one."""
    for group in optimizer.param_groups:
        group["lr"] = decay * group["initial_lr"]


def master_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which the optimiser keeps parameters of this dtype: at least single precision.

    In half precision most of its small steps would be rounded away, and the eps of Adam would be 0.
    """
    return SINGLE if dtype.itemsize < SINGLE.itemsize else dtype


def unwrapped(optimizer):
    """The optimiser class, taken out of functools.partial if necessary."""
    return optimizer.func if isinstance(optimizer, functools.partial) else optimizer
