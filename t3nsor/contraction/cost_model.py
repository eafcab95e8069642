"""Predicted seconds of a plan: counts of what it does, which follow from the sizes alone, times rates of the machine.

The predictions only have to rank the plans of one case; see `t3nsor.calibrate` for rates, and measured choices, of
one's own machine.
"""

import math
import sys
from functools import lru_cache

import torch

from t3nsor.contraction.chain import ChainStep, chain_steps, sums_small_products
from t3nsor.contraction.gemm import NARROW
from t3nsor.contraction.plans import ContractionSpec, Plan, candidates
from t3nsor.machine import MEBIBYTE, Rates, is_cpu, item_size, machine

CACHE_LINE = 64  # bytes
WHOLE_RUN, RUNS = 8, 0.4  # copies of runs of so many entries take this share of the time of single ones
MOST_CACHES = 8  # beyond, states would take more memory than they save time
MOST_MATRICES = 65535  # in a batched product on an accelerator


def choose_plan(
    spec: ContractionSpec, strategy: str | Plan = "auto", backward: bool = False, rates: Rates | None = None
) -> Plan:
    """Return the plan that was fastest when it was measured on this machine, else the cheapest that is allowed.

    rates: for a choice that does not depend on the machine; None: those of this machine.
    """
    plans = candidates(spec, strategy, backward)
    if rates is None and strategy in ("auto", "measured"):
        code = machine(spec.device).choices.get(spec.key(backward))
        measured = [plan for plan in plans if plan.code == code]
        if measured:
            return measured[0]
    return min(plans, key=lambda plan: cost(spec, plan, backward, rates))


def cost(spec: ContractionSpec, plan: Plan, backward: bool = False, rates: Rates | None = None) -> float:
    """Predict the seconds of a forward pass, or of a backward pass together with the forward pass before it."""
    first = first_plan(spec, plan, rates=rates) if backward else plan
    rates = rates or machine(spec.device).rates(spec.dtype)
    return predicted(counts(spec, plan, backward, first), rates)


def predicted(done: tuple[float, ...], rates: Rates) -> float:
    """Seconds of what `counts` says at these rates."""
    return sum(count * rate for count, rate in zip(done, rates, strict=True))


def first_plan(spec: ContractionSpec, plan: Plan, strategy: str | Plan = "auto", rates: Rates | None = None) -> Plan:
    """The plan of the forward pass before a backward pass with `plan`: the same where that saves work."""
    if keeps_states(spec, plan) or (spec.few_rows and plan.kind == "chain"):
        return plan
    return choose_plan(spec, strategy, rates=rates)


def steps_of(spec: ContractionSpec, plan: Plan) -> list[ChainStep]:
    """The steps of a chain."""
    return chain_steps(spec.factor_shapes(plan.groups), plan.right_to_left, spec.device, item_size(spec.dtype))


def keeps_states(spec: ContractionSpec, plan: Plan) -> bool:
    """True if the states between the steps are small enough, beside x, to be kept for a backward pass with `plan`."""
    useful = spec.save == "fast" and spec.core_gradients and plan.kind == "chain"
    return useful and state_size(spec, plan) <= spec.in_features


def state_size(spec: ContractionSpec, plan: Plan) -> int:
    """Numbers between the steps for a row."""
    return sum(step.batch * step.outer * step.rest for step in steps_of(spec, plan)[:-1])


def rows_per_block(spec: ContractionSpec, plan: Plan) -> int:
    """Rows that a chain or a pair handles at once, so that its states stay in the caches of the threads in use."""
    steps, sides = steps_of(spec, plan), spec.in_features + spec.out_features
    if plan.kind in ("paired", "hybrid"):
        _, n1, _, _, m2, rank = pair_sizes(spec, plan)
        numbers, cache = rank * n1 * m2 + sides // 2, 1.5
    elif len(steps) > 1:
        numbers, cache = max(step.batch * step.outer * step.rest for step in steps[:-1]) + sides, 3.4
    else:  # there is no state to keep
        return sys.maxsize
    caches = cache * min(torch.get_num_threads(), MOST_CACHES) if is_cpu(spec.device) else 256
    fitting = caches * MEBIBYTE / (numbers * item_size(spec.dtype))
    if not is_cpu(spec.device):
        fitting = min(fitting, MOST_MATRICES / max(step.batch for step in steps))
    return 2 ** max(4, int(math.log2(max(fitting, 1))))


def modes_per_block(spec: ContractionSpec, plan: Plan) -> int:
    """Output modes of the first factor that are built at a time; x is read again for each block.

    The rows of y that a block writes begin at whole cache lines where that can be had: products into others are slower.
    """
    (_, _, m1, _), (_, _, m2, _) = spec.factor_shapes(plan.groups)
    bytes_per_mode = m2 * spec.in_features * item_size(spec.dtype)
    bytes_of_rows = spec.rows * (spec.in_features + spec.out_features) * item_size(spec.dtype)
    wanted = max((4 if is_cpu(spec.device) else 64) * MEBIBYTE, bytes_of_rows / 4)
    count = math.ceil(m1 * bytes_per_mode / max(wanted, bytes_per_mode))
    size, aligned = math.ceil(m1 / count), CACHE_LINE // math.gcd(CACHE_LINE, m2 * item_size(spec.dtype))
    return size - size % aligned or size


def pair_sizes(spec: ContractionSpec, plan: Plan) -> tuple[bool, int, int, int, int, int]:
    """(exchanged, n1, m1, n2, m2, rank) of a pair, with the modes of x and y exchanged if it starts from the left."""
    (_, n1, m1, rank), (_, n2, m2, _) = spec.factor_shapes(plan.groups)
    exchanged = plan.kind in ("paired", "hybrid") and not plan.right_to_left
    return (exchanged, m1, n1, m2, n2, rank) if exchanged else (exchanged, n1, m1, n2, m2, rank)


@lru_cache(maxsize=4096)
def counts(spec: ContractionSpec, plan: Plan, backward: bool, first: Plan) -> tuple[float, ...]:
    """How much of each thing in `Rates` a pass does; a backward pass with the forward pass, of the plan `first`."""
    done = [_Counter(spec, plan, backward).counts]
    if backward:
        done.append(_Counter(spec, first, backward=False).counts)
    return tuple(map(sum, zip(*done, strict=True)))


class _Counter:
    def __init__(self, spec: ContractionSpec, plan: Plan, backward: bool):
        self.spec, self.plan, self.counts = spec, plan, [0.0] * len(Rates._fields)
        self.block = min(spec.rows, rows_per_block(spec, plan))
        self.blocks = spec.rows / self.block
        self.n, self.m = spec.in_features, spec.out_features
        self.factors(backward)
        builds, product = plan.kind in ("full", "hybrid"), spec.x_gradient or not backward
        if product and builds:
            self.build()
        if product and (builds or spec.with_dense_weight):
            self.gemm(1, spec.rows, self.n, self.m)
        if plan.kind == "chain":
            self.chain(backward)
        elif plan.kind == "full":
            if backward and spec.core_gradients:
                self.full_gradients()
        elif spec.core_gradients:
            self.paired(spec.x_gradient and plan.kind == "paired")

    def gemm(self, batch: float, m: int, k: int, n: int, times: float = 1.0) -> None:
        """`times` calls for `batch` products (m, k) @ (k, n)."""
        touched = batch * (m * k + k * n + m * n)
        self._add(times, batch * m * k * n, touched, 0, 1, batch if batch > 1 else 0)

    def copy(self, entries: float, times: float = 1.0, run: int = 1) -> None:
        """`times` permuting copies of so many entries, of which `run` stay together."""
        self._add(times, 0, 0, entries if run < WHOLE_RUN else entries * RUNS, 1, 0)

    def _add(self, times: float, *more: float) -> None:
        self.counts = [count + times * extra for count, extra in zip(self.counts, more, strict=True)]

    def factors(self, backward: bool) -> None:
        """Merging the cores of each group, and splitting the gradient of what they are merged to."""
        start, turned = 0, self.plan.kind == "chain" and self.plan.right_to_left
        for size, (left, n, m, right) in zip(self.plan.groups, self.spec.factor_shapes(self.plan.groups), strict=True):
            if turned:
                self.copy(left * n * m * right, 2 if backward else 1)
            for rank in self.spec.ranks[start + 1 : start + size]:
                self.gemm(1, left * n, rank, m * right, 3 if backward else 1)
                self.copy(left * n * m * right, 4 if backward else 2)
            start += size

    def chain(self, backward: bool) -> None:
        steps, gradients = steps_of(self.spec, self.plan), backward and self.spec.core_gradients
        again = gradients and not keeps_states(self.spec, self.plan)
        for k, step in enumerate(steps):
            if not backward or (again and k < len(steps) - 1):
                self._step(step, step.outer, step.inner)
            if backward and (k > 0 or self.spec.x_gradient):
                self._step(step, step.inner, step.outer)
            if gradients:
                self._gradient(step)

    def build(self) -> None:
        (_, n1, m1, r), (_, n2, m2, _) = self.spec.factor_shapes(self.plan.groups)
        self.gemm(1, m1 * n1, r, m2 * n2)
        self.copy(self.n * self.m, run=n2)

    def full_gradients(self) -> None:
        (_, n1, m1, r), (_, n2, m2, _) = self.spec.factor_shapes(self.plan.groups)
        self.gemm(1, self.m, self.spec.rows, self.n)
        self.copy(self.n * self.m, run=n2)
        self.gemm(1, r, m1 * n1, m2 * n2, times=2)

    def paired(self, x_gradient: bool) -> None:
        exchanged, n1, m1, n2, m2, r = pair_sizes(self.spec, self.plan)
        rows, times = self.block, self.blocks
        self.copy(rows * self.n, times, run=n2)
        self.copy(rows * self.m, times, run=m2)
        narrow = 4 if is_cpu(self.spec.device) and 1 < m2 < NARROW else 1  # batches, which are not transposed
        self.gemm(r, n1 * rows, n2, m2, times * narrow)
        self.gemm(1, r * n1, m1, rows * m2, times)
        self.gemm(1, r * n1, rows * m2, m1, times)
        self.gemm(r, n2, n1 * rows, m2, times * narrow)
        if item_size(self.spec.dtype) == 2:  # two of the products copy x for each rank
            self.copy(r * rows * self.n, 2 * times)
        if x_gradient:
            self.copy(rows * self.n, times, run=n2)
            if exchanged:
                self.gemm(1, m1, r * n1, rows * m2, times)
            else:
                self.gemm(1, n1 * rows, m2, n2, times * r)

    def _step(self, step: ChainStep, outer: int, inner: int) -> None:
        """A product (outer, inner) with a state, for every block."""
        batch = self.block * step.batch
        if not step.by_rows:
            self.gemm(batch, outer, inner, step.rest, self.blocks)
            return
        self.gemm(1, batch * step.rest, inner, outer, self.blocks)
        for size in (inner, outer) if step.rest > 1 else (outer,) if outer < NARROW else ():
            self.copy(batch * step.rest * size, self.blocks)

    def _gradient(self, step: ChainStep) -> None:
        batch = self.block * step.batch
        if not step.by_rows and sums_small_products(step):
            self.gemm(batch, step.outer, step.rest, step.inner, self.blocks)
            self.copy(batch * step.outer * step.inner, self.blocks, run=step.inner)
            return
        self.gemm(1, step.outer, batch * step.rest, step.inner, self.blocks)
