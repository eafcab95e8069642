"""What a contraction needs to know beside the numbers, found once for each kind of operands."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache

import torch

from t3nsor.contraction import Chain, StepShape, step_shapes
from t3nsor.cost_model import choose, is_built_whole, outputs_per_block, rows_per_block
from t3nsor.dense import Pieces, Whole
from t3nsor.paired import Pair
from t3nsor.plans import Plan, Sizes


@dataclass(frozen=True)
class Recipe:
    """A plan with all that follows from the sizes alone.

    block: rows that a chain or a pair handles at once. modes: how many output modes of a full matrix are built at once;
    None: all of them, which is for a matrix without a weight beside it only.
    """

    sizes: Sizes
    plan: Plan
    steps: list[StepShape]
    block: int
    modes: int | None

    def chain(self, matrices) -> Chain:
        return Chain(self.steps, matrices, self.block)

    def pair(self, factors) -> Pair:
        return Pair(*factors, self.block, exchanged=not self.plan.right_to_left)

    def full(self, factors, weight) -> Whole | Pieces:
        return Whole(*factors) if self.modes is None else Pieces(*factors, weight, self.modes)


@dataclass(frozen=True)
class Problem:
    """The sizes of a contraction and its strategy, or plan, with the recipes for both passes that follow."""

    sizes: Sizes
    strategy: str | Plan
    _backward: dict[tuple[bool, bool], Recipe] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def forward(self) -> Recipe:
        return _recipe(self.sizes, self.strategy, False)

    def backward(self, *wanted: bool) -> Recipe:
        """The recipe for the gradients of (x, cores), those that are wanted."""
        if wanted not in self._backward:
            x_gradient, core_gradients = wanted
            sizes = replace(self.sizes, x_gradient=x_gradient, core_gradients=core_gradients)
            self._backward[wanted] = _recipe(sizes, self.strategy, True)
        return self._backward[wanted]


def problem_of(x: torch.Tensor, cores, closed: bool, beside: bool, strategy: str | Plan = "auto") -> Problem:
    """x (.., in) times cores of a train or a ring, alone or beside a dense weight."""
    shapes = [core.shape for core in cores]
    return problem_of_shapes(strategy, closed, beside, x.dtype, x.device, x.shape, *shapes)


@lru_cache(maxsize=4096)
def problem_of_shapes(strategy, closed, beside, dtype, device, x_shape, *shapes) -> Problem:
    inputs, outputs = tuple(shape[1] for shape in shapes), tuple(shape[2] for shape in shapes)
    ranks, rows = (*(shape[0] for shape in shapes), shapes[-1][-1]), counted(math.prod(x_shape[:-1]))
    sizes = Sizes(inputs, outputs, ranks, closed, rows, str(dtype).removeprefix("torch."), device.type, beside)
    return _problem(sizes, strategy)


def counted(rows: int) -> int:
    """The power of two as which rows are counted, so that there are few choices to make."""
    return 2 ** round(math.log2(max(1, rows)))


_problem = lru_cache(maxsize=4096)(Problem)


def _recipe(sizes: Sizes, strategy: str | Plan, backward: bool) -> Recipe:
    plan = choose(sizes, strategy, backward)
    steps = step_shapes(sizes.factor_shapes(plan.groups), plan.right_to_left)
    in_pieces = plan.kind in ("full", "hybrid") and not is_built_whole(sizes)
    modes = outputs_per_block(sizes, plan) if in_pieces else None
    return Recipe(sizes, plan, steps, rows_per_block(sizes, plan), modes)
