"""What a plan will cost, in seconds, from the sizes alone: it only has to rank the plans of one case.

A GEMM costs its operations at the rate that its shape allows, plus the calls; what is permuted or streams through main
memory costs its bytes.
"""

import math
import sys
from dataclasses import dataclass

from t3nsor.contraction.chain import StepShape, is_one_product, step_shapes, sums_after_products
from t3nsor.contraction.full import built_in_batches
from t3nsor.contraction.gemm import NARROW
from t3nsor.contraction.machines import MEBIBYTE, Machine, is_cpu, item_size, machine_for
from t3nsor.contraction.plans import Plan, Sizes, candidates

PAIRED = 1.05  # what blocks of rows cost beside their products, as a factor
NARROW_BATCH = 4.0  # how much longer batches of products with few columns take than one wide product


def choose(sizes: Sizes, strategy: str | Plan = "auto", backward: bool = False) -> Plan:
    """The plan of least cost among those that `strategy` allows."""
    return min(candidates(sizes, strategy, backward), key=lambda plan: cost(sizes, plan, backward))


def cost(sizes: Sizes, plan: Plan, backward: bool = False) -> float:
    """Predicted seconds of a forward pass, or of a backward pass from x, the cores and the gradient of y."""
    costs = _Costs(sizes, plan, machine_for(sizes.device, sizes.dtype))
    if plan.kind == "chain":
        return costs.chain_backward() if backward else costs.chain_forward()
    if not backward:
        return costs.dense_product()
    if plan.kind == "paired":
        return costs.paired_backward(sizes.x_gradient)
    seconds = costs.dense_product() if sizes.x_gradient else 0.0
    if sizes.core_gradients:
        seconds += costs.dense_gradients() if plan.kind == "full" else costs.paired_backward(x_gradient=False)
    return seconds


def rows_per_block(sizes: Sizes, plan: Plan) -> int:
    """Rows of a chain or of paired gradients that are handled at once, so that what they make stays in cache."""
    if plan.kind in ("paired", "hybrid"):
        widest = pair_sizes(sizes, plan).state + (sizes.in_features + sizes.out_features) // 2
    else:
        shapes = step_shapes(sizes.factor_shapes(plan.groups), plan.right_to_left)
        widest = max((s.batch * s.outer * s.rest for s in shapes[:-1]), default=0)
    if widest == 0:  # one step, which keeps nothing
        return sys.maxsize
    fitting = machine_for(sizes.device, sizes.dtype).block / (widest * item_size(sizes.dtype))
    power = 2 ** max(4, int(math.log2(max(fitting, 1))))
    return min(power, 128) if is_cpu(sizes.device) else power


def is_built_whole(sizes: Sizes) -> bool:
    """Whether a full matrix, with nothing beside it, is built at once rather than in pieces, as a small one is."""
    most = max(8 * MEBIBYTE if is_cpu(sizes.device) else 64 * MEBIBYTE, _bytes_of_rows(sizes))
    return not sizes.beside and sizes.in_features * sizes.out_features * item_size(sizes.dtype) <= most


def outputs_per_block(sizes: Sizes, plan: Plan) -> int:
    """How many of the first factor's output modes of the full matrix are built at a time: each time x is read again."""
    (_, _, m1, _), (_, _, m2, _) = sizes.factor_shapes(plan.groups)
    bytes_per_mode = m2 * sizes.in_features * item_size(sizes.dtype)
    wanted = max(4 * MEBIBYTE if is_cpu(sizes.device) else 64 * MEBIBYTE, _bytes_of_rows(sizes) / 4)
    pieces = math.ceil(m1 * bytes_per_mode / max(wanted, bytes_per_mode))
    return math.ceil(m1 / pieces)


def _bytes_of_rows(sizes: Sizes) -> int:
    """Of x and y."""
    return sizes.rows * (sizes.in_features + sizes.out_features) * item_size(sizes.dtype)


@dataclass(frozen=True)
class PairSizes:
    """The sizes of a two-factor form as paired gradients see it: (n1, m1, r) and (r, n2, m2), x in front."""

    n1: int
    m1: int
    n2: int
    m2: int
    rank: int

    @property
    def state(self) -> int:
        """Numbers that one row expands to."""
        return self.rank * self.n1 * self.m2


def pair_sizes(sizes: Sizes, plan: Plan) -> PairSizes:
    """The two factors of a plan; with x and y exchanged where a pair starts from the left."""
    (_, n1, m1, rank), (_, n2, m2, _) = sizes.factor_shapes(plan.groups)
    exchanged = plan.kind in ("paired", "hybrid") and not plan.right_to_left
    return PairSizes(m1, n1, m2, n2, rank) if exchanged else PairSizes(n1, m1, n2, m2, rank)


class _Costs:
    """The parts of the cost of one plan."""

    def __init__(self, sizes: Sizes, plan: Plan, rates: Machine):
        self.sizes, self.plan, self.rates = sizes, plan, rates
        self.item_size = item_size(sizes.dtype)
        # More than two cores are merged in float32, and large copies take no longer in half precision.
        self.wide = machine_for(sizes.device, "float32") if self.item_size == 2 else rates
        self.rows = max(1, sizes.rows)
        self.whole = is_built_whole(sizes)

    def chain_forward(self) -> float:
        rows, seconds = self._block(), 0.0
        for s in self._steps():
            seconds += self._product(rows * s.batch, s.outer, s.inner, s.rest)
        chain = self.rates.forward * self._blocks(rows) * seconds
        return chain + self._factors() + self._rows_through_memory() + self._beside()

    def chain_backward(self) -> float:
        rows, seconds = self._block(), 0.0
        steps = self._steps()
        for k, s in enumerate(steps):
            if self.sizes.core_gradients:
                seconds += self._gradient(s, rows)
                if k < len(steps) - 1:
                    seconds += self._product(rows * s.batch, s.outer, s.inner, s.rest)
            if k > 0 or self.sizes.x_gradient:
                seconds += self._product(rows * s.batch, s.inner, s.outer, s.rest)
        beside = self._beside() if self.sizes.x_gradient else 0.0
        chain = self.rates.backward * self._blocks(rows) * seconds
        return chain + 2 * self._factors() + 2 * self._rows_through_memory() + beside

    def dense_product(self) -> float:
        pair, rates = pair_sizes(self.sizes, Plan("full", self.plan.groups)), self.rates
        n, m = self.sizes.in_features, self.sizes.out_features
        numbers = n * m * self.item_size
        build = self._factors() + rates.streamed * numbers * (2 if self.sizes.beside else 1)
        build += (2 if self.whole else 5) * rates.call
        if not self.whole and built_in_batches(pair.rank, pair.n2):
            build += rates.gemm(m, pair.n1, pair.rank, pair.n2)
        else:
            build += rates.gemm(1, pair.m1 * pair.n1, pair.rank, pair.m2 * pair.n2) + self._permuted(pair)
        return build + rates.gemm(1, self.rows, n, m) + self._rows_through_memory()

    def dense_gradients(self) -> float:
        pair, rates = pair_sizes(self.sizes, self.plan), self.rates
        n, m = self.sizes.in_features, self.sizes.out_features
        contracted = 2 * rates.gemm(1, pair.rank, pair.m1 * pair.n1, pair.m2 * pair.n2)
        permuted = (1 if self.whole else 2) * self._permuted(pair)
        return rates.gemm(1, m, self.rows, n) + permuted + contracted + 2 * self._factors()

    def _permuted(self, pair: PairSizes) -> float:
        """A copy of the matrix between the order of its modes and that of the two factors."""
        run = pair.m2 if self.whole else pair.n2  # numbers that stay together
        numbers = self.sizes.in_features * self.sizes.out_features
        return self.wide.permuted * numbers * self.item_size * (1 + 48 / (run * self.item_size))

    def paired_backward(self, x_gradient: bool) -> float:
        p, rates, rows = pair_sizes(self.sizes, self.plan), self.rates, self._block()
        copies = rates.permuted * rows * (p.n1 * p.n2 + p.m1 * p.m2) * self.item_size
        if self.item_size == 2:  # two of the products copy x for each rank
            copies += 2 * self.wide.permuted * p.rank * rows * p.n1 * p.n2 * self.item_size
        gemms = [
            rates.gemm(p.rank, p.n1 * rows, p.n2, p.m2),
            rates.gemm(1, p.rank * p.n1, p.m1, rows * p.m2),
            rates.gemm(1, p.rank * p.n1, rows * p.m2, p.m1),
            rates.gemm(p.rank, p.n2, p.n1 * rows, p.m2),
        ]
        if rates.lanes and 1 < p.m2 < NARROW:  # batches, which nobody turns round
            gemms = [NARROW_BATCH * seconds for seconds in gemms]
        beside = 0.0
        if x_gradient:
            exchanged = not self.plan.right_to_left
            copies += rates.permuted * rows * self.sizes.in_features * self.item_size
            pulled = rates.gemm(1, p.m1, p.rank * p.n1, rows * p.m2)
            gemms.append(pulled if exchanged else p.rank * rates.gemm(1, p.n1 * rows, p.m2, p.n2))
            beside = self._beside()
        passes = (2 if x_gradient else 1) * self._rows_through_memory()
        return PAIRED * self._blocks(rows) * (copies + sum(gemms)) + 2 * self._factors() + passes + beside

    def _steps(self):
        return step_shapes(self.sizes.factor_shapes(self.plan.groups), self.plan.right_to_left)

    def _block(self) -> int:
        return min(self.rows, rows_per_block(self.sizes, self.plan))

    def _blocks(self, block: int) -> float:
        return self.rows / block

    def _product(self, batch: int, outer: int, inner: int, rest: int) -> float:
        if rest == 1:
            return self.rates.gemm(1, batch, inner, outer)
        if is_cpu(self.sizes.device) and is_one_product(StepShape(1, outer, inner, rest), self.item_size):
            copies = self.rates.permuted * batch * (outer + inner) * rest * self.item_size
            return copies + self.rates.gemm(1, outer, inner, batch * rest)
        return self.rates.gemm(batch, outer, inner, rest)

    def _gradient(self, s, rows: int) -> float:
        batch = rows * s.batch
        if s.rest == 1:
            return self.rates.gemm(1, s.outer, batch, s.inner)
        if sums_after_products(s):
            numbers = batch * s.outer * s.inner * self.item_size
            return self.rates.gemm(batch, s.outer, s.rest, s.inner) + self.rates.permuted * numbers
        copies = self.rates.permuted * batch * s.rest * (s.outer + s.inner) * self.item_size
        return copies + self.rates.gemm(1, s.outer, batch * s.rest, s.inner)

    def _factors(self) -> float:
        """Merging the cores of each group, and laying the factors out."""
        seconds, start = 0.0, 0
        for size, (left, n, m, right) in zip(self.plan.groups, self.sizes.factor_shapes(self.plan.groups), strict=True):
            inner_ranks = self.sizes.ranks[start + 1 : start + size]
            numbers, start = left * n * m * right, start + size
            copies = len(inner_ranks) + (0 if self.whole and self.plan.kind == "full" else 1)  # merged, laid out
            seconds += 3 * self.rates.call * min(copies, 1) + self.wide.permuted * numbers * 16 * copies
            seconds += 3 * 2 * numbers * max(inner_ranks, default=0) / self.wide.flops
        return seconds

    def _rows_through_memory(self) -> float:
        return self.rates.streamed * self.rows * (self.sizes.in_features + self.sizes.out_features) * self.item_size

    def _beside(self) -> float:
        """The product with the dense weight that a chain leaves to a GEMM of its own, and the second pass over y."""
        if not self.sizes.beside:
            return 0.0
        dense = self.rates.gemm(1, self.rows, self.sizes.in_features, self.sizes.out_features)
        return dense + self._rows_through_memory()
