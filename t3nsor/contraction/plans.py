"""The orders in which rows can be contracted with a chain of cores, and the sizes that decide between them."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import product

from t3nsor.errors import ShapeError

STRATEGIES = ("auto", "measured", "left_to_right", "right_to_left", "two_factor", "hybrid", "full")
KINDS = ("chain", "full", "paired", "hybrid")
SAVES = ("fast", "least")
FEW_ROWS = 16  # up to here calls take longer than products


@dataclass(frozen=True)
class Plan:
    """A contraction order.

    kind: "chain": one batched GEMM per factor; "full": one GEMM with the matrix built on the fly; for the backward pass
        only "paired": two factors by large GEMMs, or "hybrid": the gradient of x from the full matrix, those of the
        cores as for "paired".
    groups: how many adjacent cores are merged into each factor first; every kind but "chain" has two factors.
    right_to_left: the end from which a chain, or a pair, starts to contract x.
    code: the plan as a string, for custom operations, which take no Plan.
    """

    kind: str
    groups: tuple[int, ...]
    right_to_left: bool = False
    code: str = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        whole = isinstance(self.groups, tuple) and all(type(k) is int and k > 0 for k in self.groups)
        fitting = whole and self.groups and (self.kind == "chain" or len(self.groups) == 2)
        if self.kind not in KINDS or not fitting or not isinstance(self.right_to_left, bool):
            raise ShapeError(
                f"Plan({self.kind!r}, {self.groups!r}, {self.right_to_left!r}): the kind is one of {', '.join(KINDS)}, "
                'the groups a tuple of whole numbers of at least 1, two of them unless the kind is "chain", '
                "right_to_left True or False"
            )
        code = f"{self.kind} {'-'.join(map(str, self.groups))} {int(self.right_to_left)}"
        object.__setattr__(self, "code", code)

    def __str__(self) -> str:
        numbers = iter(range(1, sum(self.groups) + 1))
        groups = "".join(f"({' '.join(str(next(numbers)) for _ in range(size))})" for size in self.groups)
        if self.kind == "full" or len(self.groups) == 1:
            return f"full {groups}"
        direction = "right to left" if self.right_to_left else "left to right"
        return f"{direction} {groups}" if self.kind == "chain" else f"{self.kind} {direction} {groups}"


@dataclass(frozen=True)
class ContractionSpec:
    """Everything that the choice of a plan depends on.

    inputs: n_1 .. n_d.
    outputs: m_1 .. m_d.
    ranks: r_0 .. r_d.
    closed: True for a ring.
    rows: rows of x, see `rounded_row_count`.
    dtype: name of the dtype of x.
    device: type of the device of x.
    with_dense_weight: True for a branch beside a dense weight.
    x_gradient: True if a backward pass must produce the gradient of x.
    core_gradients: True if it must produce those of the cores.
    save: "fast" if states that are small beside x are kept for the backward pass, "least" if nothing is.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    ranks: tuple[int, ...]
    closed: bool
    rows: int
    dtype: str = "float32"
    device: str = "cpu"
    with_dense_weight: bool = False
    x_gradient: bool = True
    core_gradients: bool = True
    save: str = "fast"

    @cached_property
    def in_features(self) -> int:
        return math.prod(self.inputs)

    @cached_property
    def out_features(self) -> int:
        return math.prod(self.outputs)

    @property
    def few_rows(self) -> bool:
        return self.rows <= FEW_ROWS

    def key(self, backward: bool) -> str:
        """The problem of a pass, as a string."""
        return f"backward: {self}" if backward else f"forward: {replace(self, x_gradient=True, core_gradients=True)}"

    def factor_shapes(self, groups: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
        """Shapes (left, n, m, right) of the merged factors; the two factors of a ring as a train."""
        shapes: list[tuple[int, int, int, int]] = []
        start = 0
        for size in groups:
            stop = start + size
            n, m = math.prod(self.inputs[start:stop]), math.prod(self.outputs[start:stop])
            shapes.append((self.ranks[start], n, m, self.ranks[stop]))
            start = stop
        if self.closed:
            if len(shapes) == 1:
                ((_, n, m, _),) = shapes
                shapes = [(1, n, m, 1)]
            else:
                (a, n, m, b), (_, n2, m2, _) = shapes
                shapes = [(1, n, m, a * b), (a * b, n2, m2, 1)]
        return shapes


def rounded_row_count(rows: int) -> int:
    """`rows` rounded to a power of two, so that there are few choices to make and to remember."""
    return 2 ** round(math.log2(max(1, rows)))


def candidates(spec: ContractionSpec, strategy: str | Plan = "auto", backward: bool = False) -> list[Plan]:
    """Return the plans that `strategy`, the name of a family or one plan, allows for `spec`; at least one."""
    backward = backward and spec.core_gradients  # the gradient of x alone has the same plans as a forward pass
    if isinstance(strategy, Plan):
        counterpart = {"hybrid": "full", "paired": "chain"}.get(strategy.kind, strategy.kind)
        return [strategy if backward else replace(strategy, kind=counterpart)]
    every = _all_plans(len(spec.inputs), spec.closed)
    if spec.few_rows and strategy in ("auto", "measured"):
        return [plan for plan in every if plan.kind == "chain"]
    allowed = [plan for plan in every if _allows(strategy, plan, backward)]
    return allowed or [plan for plan in every if plan.kind == "chain"][:1]


def decode_strategy(strategy: str) -> str | Plan:
    """Return the Plan whose `code` is given, or the name of a strategy as it is."""
    if " " not in strategy:
        return strategy
    kind, groups, right_to_left = strategy.split()
    return Plan(kind, tuple(map(int, groups.split("-"))), right_to_left == "1")


def check_strategy(strategy: str | Plan, d: int, closed: bool, save: str = "fast") -> None:
    """Raise ShapeError unless both names are known; `strategy` may be a plan for `d` cores of a train or a ring."""
    if save not in SAVES:
        raise ShapeError(f"save is {save!r}; allowed: {', '.join(SAVES)}")
    if isinstance(strategy, Plan):
        if sum(strategy.groups) != d:
            raise ShapeError(f"strategy {strategy} is a plan for {sum(strategy.groups)} cores; the chain has {d}")
        if closed and len(strategy.groups) != min(d, 2):
            raise ShapeError(f"strategy {strategy} has {len(strategy.groups)} factors; a ring needs two")
    elif strategy not in STRATEGIES:
        raise ShapeError(f"strategy is {strategy!r}; allowed: {', '.join(STRATEGIES)}")


@lru_cache
def _all_plans(d: int, closed: bool) -> list[Plan]:
    """Core by core, and every split into two factors: between these, others are never faster by more than 3%."""
    if d == 1:
        return [Plan("chain", (1,))]
    splits = [(k, d - k) for k in range(1, d)]
    chains = splits if closed else list(dict.fromkeys([(1,) * d, *splits]))
    return [
        *(Plan("chain", groups, direction) for groups in chains for direction in (False, True)),
        *(Plan("full", groups) for groups in splits),
        *(Plan(kind, *split) for kind in ("paired", "hybrid") for split in product(splits, (False, True))),
    ]


def _allows(strategy: str, plan: Plan, backward: bool) -> bool:
    chain, two = plan.kind == "chain", len(plan.groups) == 2
    if plan.kind in ("paired", "hybrid") and not backward:
        return False
    return {
        "auto": True,
        "measured": True,
        "full": plan.kind == "full",
        "hybrid": plan.kind == ("hybrid" if backward else "full"),
        "two_factor": two and plan.kind in ("chain", "paired"),
        "left_to_right": chain and len(plan.groups) == sum(plan.groups) and not plan.right_to_left,
        "right_to_left": chain and len(plan.groups) == sum(plan.groups) and plan.right_to_left,
    }[strategy]
