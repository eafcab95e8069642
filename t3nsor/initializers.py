"""Chains of cores to start from: random with a chosen variance, constant, zero, the identity, or a given matrix.

All functions take `shape`, ((n_1, .., n_d), (m_1, .., m_d)), or for `tensor_*` the sizes (n_1, .., n_d); `rank`, one
for every bond, or the list of d - 1 inner ranks of a train, or of r_0 .. r_{d-1} of a ring; and by keyword the options

ring: False for a `TensorTrain`, True for a `TensorRing`.
trainable, freeze_cores: passed to its constructor.
dtype, device: of the cores. generator: where random numbers come from.

They raise ShapeError for shapes, ranks and values that do not fit.
"""

import math
from dataclasses import dataclass

import torch

from t3nsor.cores import frozen_indices
from t3nsor.decompositions import to_tr_matrix, to_tt_matrix
from t3nsor.errors import ShapeError
from t3nsor.shapes import check_matrix_shape, check_ranks, check_tensor_shape
from t3nsor.tensor_train import CoreChain, TensorRing, TensorTrain


def matrix_with_random_cores(shape, rank=8, std: float = 1.0, **options) -> CoreChain:
    """A matrix whose core entries are drawn from N(0, std^2)."""
    return _random_cores(_matrix_plan(shape, rank, options), std)


def random_matrix(shape, rank=8, std: float = 1.0, **options) -> CoreChain:
    """A random matrix whose entries have mean 0 and variance std^2."""
    return _random(_matrix_plan(shape, rank, options), std)


def glorot_initializer(shape, rank=8, **options) -> CoreChain:
    """A random matrix with the entry variance 2 / (in + out) (Glorot & Bengio 2010)."""
    rows, columns = check_matrix_shape(shape)
    return random_matrix(shape, rank, math.sqrt(2 / (math.prod(rows) + math.prod(columns))), **options)


def kaiming(shape, rank=8, **options) -> CoreChain:
    """A random matrix with the entry variance 2 / in (He et al. 2015), for x @ W before a ReLU."""
    rows, _ = check_matrix_shape(shape)
    return random_matrix(shape, rank, math.sqrt(2 / math.prod(rows)), **options)


def const_initializer(shape, rank=8, value: float = 1.0, symmetric: bool = False, **options) -> CoreChain:
    """A matrix whose every entry is `value`.

    Equal constant cores (`symmetric`) have equal gradients in all rank channels, and never use more than one of them.
    So by default the constant sits in channel 0 alone, and the other channels are random in one core and zero in the
    next: the entries are exact, and training uses the rank.
    """
    return _const(_matrix_plan(shape, rank, options), value, symmetric)


def zeros(shape, rank=8, **options) -> CoreChain:
    """The zero matrix with all cores zero. Trained, it would stay so, which is an error; see `zero_delta`."""
    return _const(_matrix_plan(shape, rank, options), 0.0, symmetric=True)


def eye(shape, rank=8, **options) -> CoreChain:
    """The identity, for a shape with n_k = m_k. It needs rank 1; further channels start as in `const_initializer`."""
    plan = _matrix_plan(shape, rank, options)
    if any(n != m for n, m in plan.modes):
        raise ShapeError(f"eye: the shape {shape} needs equal in and out factors, n_k = m_k")
    return _in_channel_zero(plan, [torch.eye(n, dtype=plan.dtype, device=plan.device) for n, _ in plan.modes])


def zero_delta(shape, rank=8, std: float | None = None, zero: str = "last", **options) -> CoreChain:
    """The zero matrix with one core zero and the others random, so that training can leave it.

    zero: which core, "last" or "first"; it must not be frozen. The others are drawn as for `random_matrix` with `std`
    (None: Glorot's).
    """
    if zero not in ("last", "first"):
        raise ShapeError(f"zero_delta: zero is {zero!r}; allowed: last, first")
    d, frozen = len(check_matrix_shape(shape)[0]), options.get("freeze_cores")
    position = d - 1 if zero == "last" else 0
    if position in frozen_indices(frozen, d, "zero_delta"):
        raise ShapeError(f"zero_delta: freeze_cores {frozen!r} freezes the {zero} core, the zero one: W would stay 0")
    chain = glorot_initializer(shape, rank, **options) if std is None else random_matrix(shape, rank, std, **options)
    with torch.no_grad():
        chain.cores[position].zero_()
    return chain


def from_matrix(
    matrix: torch.Tensor,
    shape,
    rank=None,
    epsilon: float = 0.0,
    *,
    ring: bool = False,
    trainable: bool = False,
    freeze_cores=None,
    dtype=None,
    device=None,
) -> CoreChain:
    """The approximation of `matrix` (in, out) by `to_tt_matrix`, or by `to_tr_matrix` if `ring`.

    rank and epsilon bound the ranks and the relative error; the ranks may come out smaller.
    """
    found = (to_tr_matrix if ring else to_tt_matrix)(matrix, shape, rank, epsilon)
    cores = [core.to(dtype=dtype or matrix.dtype, device=device or matrix.device) for core in found.cores]
    return type(found)(cores, trainable=trainable, freeze_cores=freeze_cores)


def padded(chain: CoreChain, rank, *, trainable: bool = False) -> CoreChain:
    """The same matrix or tensor with larger ranks, where those of `chain` are smaller, so that training can use them.

    The new channels are random in one core and zero in the next. rank: see `check_ranks`.
    """
    ranks = check_ranks(rank, chain.d, chain.closed)
    cores = []
    for k, core in enumerate(chain.cores):
        (left, *mode, right), (rows, columns) = (
            core.shape,
            (max(ranks[k], core.shape[0]), max(ranks[k + 1], core.shape[-1])),
        )
        wide = core.new_zeros(rows, *mode, columns)
        wide[:left] = torch.randn_like(wide[:left]) * core.detach().std(correction=0)
        wide[:left, ..., :right] = core.detach()
        cores.append(wide)
    return type(chain)(cores, trainable=trainable)


def tensor_with_random_cores(shape, rank=8, std: float = 1.0, **options) -> CoreChain:
    """A tensor whose core entries are drawn from N(0, std^2)."""
    return _random_cores(_tensor_plan(shape, rank, options), std)


def random_tensor(shape, rank=8, std: float = 1.0, **options) -> CoreChain:
    """A random tensor whose entries have mean 0 and variance std^2."""
    return _random(_tensor_plan(shape, rank, options), std)


def tensor_const(shape, rank=8, value: float = 1.0, symmetric: bool = False, **options) -> CoreChain:
    """A tensor whose every entry is `value`; see `const_initializer`."""
    return _const(_tensor_plan(shape, rank, options), value, symmetric)


def tensor_zeros(shape, rank=8, **options) -> CoreChain:
    """The zero tensor with all cores zero; see `zeros`."""
    return _const(_tensor_plan(shape, rank, options), 0.0, symmetric=True)


@dataclass
class _Plan:
    """What the options ask for; `modes` holds what each core carries, (n_k, m_k) or (n_k,)."""

    modes: list[tuple[int, ...]]
    rank: int | list[int]
    ring: bool = False
    trainable: bool = False
    freeze_cores: object = None
    dtype: torch.dtype | None = None
    device: torch.device | None = None
    generator: torch.Generator | None = None

    def __post_init__(self):
        if self.dtype is not None and not self.dtype.is_floating_point:
            raise ShapeError(f"dtype is {self.dtype}; cores are floating-point")
        ranks = check_ranks(self.rank, len(self.modes), self.ring)
        self.bonds = math.prod(ranks[:-1])
        self.sizes = [(ranks[k], *mode, ranks[k + 1]) for k, mode in enumerate(self.modes)]

    def normal(self, size, std: float) -> torch.Tensor:
        return torch.randn(size, dtype=self.dtype, device=self.device, generator=self.generator) * std

    def constant(self, size, value: float) -> torch.Tensor:
        return torch.full(size, value, dtype=self.dtype or torch.get_default_dtype(), device=self.device)

    def chain(self, cores) -> CoreChain:
        kind = TensorRing if self.ring else TensorTrain
        return kind(cores, trainable=self.trainable, freeze_cores=self.freeze_cores)


def _matrix_plan(shape, rank, options) -> _Plan:
    return _Plan(list(zip(*check_matrix_shape(shape), strict=True)), rank, **options)


def _tensor_plan(shape, rank, options) -> _Plan:
    return _Plan([(n,) for n in check_tensor_shape(shape)], rank, **options)


def _random_cores(plan: _Plan, std: float) -> CoreChain:
    if not 0 <= std < math.inf:
        raise ShapeError(f"std is {std}; it must be a number of at least 0")
    return plan.chain([plan.normal(size, std) for size in plan.sizes])


def _random(plan: _Plan, std: float) -> CoreChain:
    """An entry sums as many products of d core entries as the bonds multiply to, so its variance is their number times
    the d-th power of the cores' variance."""
    if not 0 <= std < math.inf:
        raise ShapeError(f"std is {std}; it must be a number of at least 0")
    d = len(plan.sizes)
    return _random_cores(plan, std ** (1 / d) * plan.bonds ** (-1 / (2 * d)))


def _const(plan: _Plan, value: float, symmetric: bool) -> CoreChain:
    if not math.isfinite(value):
        raise ShapeError(f"value is {value}; it must be finite")
    d = len(plan.sizes)
    if not symmetric:
        # Ones, and the value in the last core: exact, of either sign, and with a gradient even from zero.
        ones = [plan.constant(mode, 1.0) for mode in plan.modes]
        return _in_channel_zero(plan, [*ones[:-1], ones[-1] * value])
    if value == 0 and plan.trainable and d > 1:
        raise ShapeError("all cores would be zero, and so all their gradients: nothing to train; see zero_delta")
    size = (abs(value) / plan.bonds) ** (1 / d)
    cores = [plan.constant(shape, size) for shape in plan.sizes]
    return plan.chain([cores[0] * math.copysign(1, value), *cores[1:]])


def _in_channel_zero(plan: _Plan, blocks: list[torch.Tensor]) -> CoreChain:
    """The chain of rank 1 with the cores `blocks`, in channel 0 of all bonds.

    What leaves channel 0 is random and what comes from another channel is zero, so no other path contributes at first.
    """
    cores = []
    for block, size in zip(blocks, plan.sizes, strict=True):
        core = plan.constant(size, 0.0)
        core[0] = plan.normal(size[1:], size[-1] ** -0.5)
        core[0, ..., 0] = block
        cores.append(core)
    return plan.chain(cores)
