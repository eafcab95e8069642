"""Predicted seconds of a plan, from the sizes alone; they only have to rank the plans of one case.

A GEMM costs its operations at the rate that its shape allows, plus the calls; permuting copies and passes through main
memory cost their bytes.
"""

import math
import sys
from dataclasses import dataclass

from t3nsor.contraction.chain import ChainStep, chain_steps, is_one_gemm, sums_small_products
from t3nsor.contraction.full import builds_in_batches
from t3nsor.contraction.gemm import NARROW
from t3nsor.contraction.machines import MEBIBYTE, Machine, is_cpu, item_size, machine_for
from t3nsor.contraction.plans import ContractionSpec, Plan, candidates

CACHE_LINE = 64  # bytes
PAIRED = 1.05  # overhead of blocks of rows, as a factor on the time of their products
NARROW_BATCH = 4.0  # time of a batch of products with few columns, relative to one wide product


def choose_plan(spec: ContractionSpec, strategy: str | Plan = "auto", backward: bool = False) -> Plan:
    """Return the cheapest of the plans that `strategy` allows."""
    return min(candidates(spec, strategy, backward), key=lambda plan: cost(spec, plan, backward))


def cost(spec: ContractionSpec, plan: Plan, backward: bool = False) -> float:
    """Predict the seconds of a forward pass, or of a backward pass from x, the cores and the gradient of y."""
    costs = _Costs(spec, plan, machine_for(spec.device, spec.dtype))
    if plan.kind == "chain":
        return costs.chain_backward() if backward else costs.chain_forward()
    if not backward:
        return costs.dense_product()
    if plan.kind == "paired":
        return costs.paired_backward(spec.x_gradient)
    seconds = costs.dense_product() if spec.x_gradient else 0.0
    if spec.core_gradients:
        seconds += costs.dense_gradients() if plan.kind == "full" else costs.paired_backward(x_gradient=False)
    return seconds


def rows_per_block(spec: ContractionSpec, plan: Plan) -> int:
    """Rows that a chain or a pair handles at once, so that its states stay in cache."""
    if plan.kind in ("paired", "hybrid"):
        widest = pair_shape(spec, plan).state + (spec.in_features + spec.out_features) // 2
    else:
        shapes = chain_steps(spec.factor_shapes(plan.groups), plan.right_to_left)
        widest = max((s.batch * s.outer * s.rest for s in shapes[:-1]), default=0)
    if widest == 0:  # a single step has no state to keep
        return sys.maxsize
    fitting = machine_for(spec.device, spec.dtype).block / (widest * item_size(spec.dtype))
    power = 2 ** max(4, int(math.log2(max(fitting, 1))))
    return min(power, 128) if is_cpu(spec.device) else power


def is_built_at_once(spec: ContractionSpec) -> bool:
    """True if the full matrix is small enough, and alone, so that it is built at once rather than in blocks."""
    most = max(8 * MEBIBYTE if is_cpu(spec.device) else 64 * MEBIBYTE, _bytes_of_rows(spec))
    return not spec.with_dense_weight and spec.in_features * spec.out_features * item_size(spec.dtype) <= most


def modes_per_block(spec: ContractionSpec, plan: Plan) -> int:
    """Output modes of the first factor that are built at a time; x is read again for each block.

    The rows of y that a block writes begin at whole cache lines where that can be had: products into others are slower.
    """
    (_, _, m1, _), (_, _, m2, _) = spec.factor_shapes(plan.groups)
    bytes_per_mode = m2 * spec.in_features * item_size(spec.dtype)
    wanted = max(4 * MEBIBYTE if is_cpu(spec.device) else 64 * MEBIBYTE, _bytes_of_rows(spec) / 4)
    count = math.ceil(m1 * bytes_per_mode / max(wanted, bytes_per_mode))
    size, aligned = math.ceil(m1 / count), CACHE_LINE // math.gcd(CACHE_LINE, m2 * item_size(spec.dtype))
    return size - size % aligned or size


def _bytes_of_rows(spec: ContractionSpec) -> int:
    """Bytes of x and y."""
    return spec.rows * (spec.in_features + spec.out_features) * item_size(spec.dtype)


@dataclass(frozen=True)
class PairShape:
    """Sizes of two factors (n1, m1, r) and (r, n2, m2) as the paired backward pass sees them."""

    n1: int
    m1: int
    n2: int
    m2: int
    rank: int

    @property
    def state(self) -> int:
        """Entries that one row expands to."""
        return self.rank * self.n1 * self.m2


def pair_shape(spec: ContractionSpec, plan: Plan) -> PairShape:
    """The two factors of a plan, with the modes of x and y exchanged where a pair starts from the left."""
    (_, n1, m1, rank), (_, n2, m2, _) = spec.factor_shapes(plan.groups)
    exchanged = plan.kind in ("paired", "hybrid") and not plan.right_to_left
    return PairShape(m1, n1, m2, n2, rank) if exchanged else PairShape(n1, m1, n2, m2, rank)


class _Costs:
    """The parts of the cost of one plan."""

    def __init__(self, spec: ContractionSpec, plan: Plan, rates: Machine):
        self.spec, self.plan, self.rates = spec, plan, rates
        self.item_size = item_size(spec.dtype)
        # More than two cores are merged in float32, and large copies are no slower in half precision.
        self.wide = machine_for(spec.device, "float32") if self.item_size == 2 else rates
        self.rows = max(1, spec.rows)
        self.at_once = is_built_at_once(spec)

    def chain_forward(self) -> float:
        rows, seconds = self._block(), 0.0
        for s in self._steps():
            seconds += self._product(rows * s.batch, s.outer, s.inner, s.rest)
        chain = self.rates.forward * self._blocks(rows) * seconds
        return chain + self._factors() + self._rows_through_memory() + self._dense_weight()

    def chain_backward(self) -> float:
        rows, seconds = self._block(), 0.0
        steps = self._steps()
        for k, s in enumerate(steps):
            if self.spec.core_gradients:
                seconds += self._gradient(s, rows)
                if k < len(steps) - 1:
                    seconds += self._product(rows * s.batch, s.outer, s.inner, s.rest)
            if k > 0 or self.spec.x_gradient:
                seconds += self._product(rows * s.batch, s.inner, s.outer, s.rest)
        dense = self._dense_weight() if self.spec.x_gradient else 0.0
        chain = self.rates.backward * self._blocks(rows) * seconds
        return chain + 2 * self._factors() + 2 * self._rows_through_memory() + dense

    def dense_product(self) -> float:
        pair, rates = pair_shape(self.spec, Plan("full", self.plan.groups)), self.rates
        n, m = self.spec.in_features, self.spec.out_features
        numbers = n * m * self.item_size
        build = self._factors() + rates.streamed * numbers * (2 if self.spec.with_dense_weight else 1)
        build += (2 if self.at_once else 5) * rates.call
        if not self.at_once and builds_in_batches(pair.rank, pair.n2):
            build += rates.gemm(m, pair.n1, pair.rank, pair.n2)
        else:
            build += rates.gemm(1, pair.m1 * pair.n1, pair.rank, pair.m2 * pair.n2) + self._permuted(pair)
        return build + rates.gemm(1, self.rows, n, m) + self._rows_through_memory()

    def dense_gradients(self) -> float:
        pair, rates = pair_shape(self.spec, self.plan), self.rates
        n, m = self.spec.in_features, self.spec.out_features
        contracted = 2 * rates.gemm(1, pair.rank, pair.m1 * pair.n1, pair.m2 * pair.n2)
        permuted = (1 if self.at_once else 2) * self._permuted(pair)
        return rates.gemm(1, m, self.rows, n) + permuted + contracted + 2 * self._factors()

    def _permuted(self, pair: PairShape) -> float:
        """A copy of the matrix from the order of its modes to that of the two factors, or back."""
        run = pair.m2 if self.at_once else pair.n2  # numbers that stay adjacent
        numbers = self.spec.in_features * self.spec.out_features
        return self.wide.permuted * numbers * self.item_size * (1 + 48 / (run * self.item_size))

    def paired_backward(self, x_gradient: bool) -> float:
        p, rates, rows = pair_shape(self.spec, self.plan), self.rates, self._block()
        copies = rates.permuted * rows * (p.n1 * p.n2 + p.m1 * p.m2) * self.item_size
        if self.item_size == 2:  # two of the products copy x for each rank
            copies += 2 * self.wide.permuted * p.rank * rows * p.n1 * p.n2 * self.item_size
        gemms = [
            rates.gemm(p.rank, p.n1 * rows, p.n2, p.m2),
            rates.gemm(1, p.rank * p.n1, p.m1, rows * p.m2),
            rates.gemm(1, p.rank * p.n1, rows * p.m2, p.m1),
            rates.gemm(p.rank, p.n2, p.n1 * rows, p.m2),
        ]
        if rates.lanes and 1 < p.m2 < NARROW:  # batches, which are not transposed
            gemms = [NARROW_BATCH * seconds for seconds in gemms]
        dense = 0.0
        if x_gradient:
            exchanged = not self.plan.right_to_left
            copies += rates.permuted * rows * self.spec.in_features * self.item_size
            one_gemm = rates.gemm(1, p.m1, p.rank * p.n1, rows * p.m2)
            gemms.append(one_gemm if exchanged else p.rank * rates.gemm(1, p.n1 * rows, p.m2, p.n2))
            dense = self._dense_weight()
        passes = (2 if x_gradient else 1) * self._rows_through_memory()
        return PAIRED * self._blocks(rows) * (copies + sum(gemms)) + 2 * self._factors() + passes + dense

    def _steps(self) -> list[ChainStep]:
        return chain_steps(self.spec.factor_shapes(self.plan.groups), self.plan.right_to_left)

    def _block(self) -> int:
        return min(self.rows, rows_per_block(self.spec, self.plan))

    def _blocks(self, block: int) -> float:
        return self.rows / block

    def _product(self, batch: int, outer: int, inner: int, rest: int) -> float:
        if rest == 1:
            return self.rates.gemm(1, batch, inner, outer)
        if is_cpu(self.spec.device) and is_one_gemm(ChainStep(1, outer, inner, rest), self.item_size):
            copies = self.rates.permuted * batch * (outer + inner) * rest * self.item_size
            return copies + self.rates.gemm(1, outer, inner, batch * rest)
        return self.rates.gemm(batch, outer, inner, rest)

    def _gradient(self, s: ChainStep, rows: int) -> float:
        batch = rows * s.batch
        if s.rest == 1:
            return self.rates.gemm(1, s.outer, batch, s.inner)
        if sums_small_products(s):
            numbers = batch * s.outer * s.inner * self.item_size
            return self.rates.gemm(batch, s.outer, s.rest, s.inner) + self.rates.permuted * numbers
        copies = self.rates.permuted * batch * s.rest * (s.outer + s.inner) * self.item_size
        return copies + self.rates.gemm(1, s.outer, batch * s.rest, s.inner)

    def _factors(self) -> float:
        """Merging the cores of each group, and arranging the factors in memory."""
        seconds, start = 0.0, 0
        for size, (left, n, m, right) in zip(self.plan.groups, self.spec.factor_shapes(self.plan.groups), strict=True):
            inner_ranks = self.spec.ranks[start + 1 : start + size]
            numbers, start = left * n * m * right, start + size
            copies = len(inner_ranks) + (0 if self.at_once and self.plan.kind == "full" else 1)  # merged, arranged
            seconds += 3 * self.rates.call * min(copies, 1) + self.wide.permuted * numbers * 16 * copies
            seconds += 3 * 2 * numbers * max(inner_ranks, default=0) / self.wide.flops
        return seconds

    def _rows_through_memory(self) -> float:
        return self.rates.streamed * self.rows * (self.spec.in_features + self.spec.out_features) * self.item_size

    def _dense_weight(self) -> float:
        """The product with the dense weight, a GEMM of its own beside a chain, and the second pass over y."""
        if not self.spec.with_dense_weight:
            return 0.0
        dense = self.rates.gemm(1, self.rows, self.spec.in_features, self.spec.out_features)
        return dense + self._rows_through_memory()
