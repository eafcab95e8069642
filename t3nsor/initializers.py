"""Initial chains of cores: random with a chosen variance, constant, zero, the identity, or a given matrix.

All functions take

shape: ((n_1, .., n_d), (m_1, .., m_d)), or for `tensor_*` the sizes (n_1, .., n_d).
rank: one for every bond, or the list of d - 1 inner ranks of a train, or of r_0 .. r_{d-1} of a ring.

and by keyword the options

ring: False for a `TensorTrain`, True for a `TensorRing`.
trainable, freeze_cores: passed to its constructor.
dtype, device: of the cores.
generator: source of random numbers.

They raise ShapeError for shapes, ranks and values that do not fit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from t3nsor.cores import FreezeCores, frozen_indices
from t3nsor.decompositions import to_tr_matrix, to_tt_matrix
from t3nsor.errors import ShapeError
from t3nsor.scaling import standard_deviation
from t3nsor.shapes import MatrixShape, Rank, check_matrix_shape, check_ranks, check_tensor_shape
from t3nsor.tensor_train import CoreChain, TensorRing, TensorTrain


def matrix_with_random_cores(shape: MatrixShape, rank: Rank = 8, std: float = 1.0, **options: Any) -> CoreChain:
    """A matrix whose core entries are drawn from N(0, std^2)."""
    return _random_cores(_matrix_spec(shape, rank, options), std)


def random_matrix(shape: MatrixShape, rank: Rank = 8, std: float = 1.0, **options: Any) -> CoreChain:
    """A random matrix whose entries have mean 0 and variance std^2."""
    return _random(_matrix_spec(shape, rank, options), std)


def glorot_initializer(shape: MatrixShape, rank: Rank = 8, **options: Any) -> CoreChain:
    """A random matrix with the entry variance 2 / (in + out) (Glorot & Bengio 2010)."""
    rows, columns = check_matrix_shape(shape)
    return random_matrix(shape, rank, math.sqrt(2 / (math.prod(rows) + math.prod(columns))), **options)


def kaiming(shape: MatrixShape, rank: Rank = 8, **options: Any) -> CoreChain:
    """A random matrix with the entry variance 2 / in (He et al. 2015), for x @ W before a ReLU."""
    rows, _ = check_matrix_shape(shape)
    return random_matrix(shape, rank, math.sqrt(2 / math.prod(rows)), **options)


def const_initializer(
    shape: MatrixShape, rank: Rank = 8, value: float = 1.0, symmetric: bool = False, **options: Any
) -> CoreChain:
    """A matrix whose every entry is `value`.

    Equal constant cores (`symmetric`) have equal gradients in all rank channels, and never use more than one of them.
    By default, therefore, the constant is in channel 0 alone, and the other channels are random in one core and zero in
    the next: the entries are exact, and training uses the rank.
    """
    return _const(_matrix_spec(shape, rank, options), value, symmetric)


def zeros(shape: MatrixShape, rank: Rank = 8, **options: Any) -> CoreChain:
    """The zero matrix with all cores zero. Training could not leave it: `trainable` is an error, see `zero_delta`."""
    return _const(_matrix_spec(shape, rank, options), 0.0, symmetric=True)


def eye(shape: MatrixShape, rank: Rank = 8, **options: Any) -> CoreChain:
    """The identity, for a shape with n_k = m_k. It needs rank 1; further channels start as in `const_initializer`."""
    spec = _matrix_spec(shape, rank, options)
    if any(n != m for n, m in spec.modes):
        raise ShapeError(f"eye: the shape {shape} needs equal in and out factors, n_k = m_k")
    return _in_channel_zero(spec, [torch.eye(n, dtype=spec.dtype, device=spec.device) for n, _ in spec.modes])


def zero_delta(
    shape: MatrixShape, rank: Rank = 8, std: float | None = None, zero: str | int = "last", **options: Any
) -> CoreChain:
    """The zero matrix with one core zero and the others random, so that training can leave it.

    std: as for `random_matrix`, for the other cores; None: Glorot's.
    zero: which core is zero, "last", "first" or an index; it must not be frozen.
    """
    d, frozen = len(check_matrix_shape(shape)[0]), options.get("freeze_cores")
    positions: dict[str | int, int] = {"last": d - 1, "first": 0, **{k: k for k in range(d)}}
    if zero not in positions:
        raise ShapeError(f"zero_delta: zero is {zero!r}; allowed: last, first or an index from 0 to {d - 1}")
    position = positions[zero]
    if position in frozen_indices(frozen, d, "zero_delta"):
        raise ShapeError(f"zero_delta: freeze_cores {frozen!r} freezes core {position}, which is zero: W would stay 0")
    chain = glorot_initializer(shape, rank, **options) if std is None else random_matrix(shape, rank, std, **options)
    with torch.no_grad():
        chain.cores[position].zero_()
    return chain


def from_matrix(
    matrix: torch.Tensor,
    shape: MatrixShape,
    rank: Rank | None = None,
    epsilon: float = 0.0,
    *,
    ring: bool = False,
    trainable: bool = False,
    freeze_cores: FreezeCores = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> CoreChain:
    """Approximate `matrix` (in, out) by `to_tt_matrix`, or by `to_tr_matrix` if `ring`.

    rank: bound on the ranks, which may come out smaller; None: unbounded.
    epsilon: bound on the relative error.
    """
    decompose = to_tr_matrix if ring else to_tt_matrix
    found: CoreChain = decompose(matrix, shape, rank, epsilon, dtype=dtype)
    cores = [core.to(device or matrix.device) for core in found.cores]
    return type(found)(cores, trainable=trainable, freeze_cores=freeze_cores)


def padded(chain: CoreChain, rank: Rank, *, trainable: bool = False) -> CoreChain:
    """Return the same matrix or tensor with every rank raised to at least `rank`, for training to use.

    rank: see `check_ranks`. The new channels are random in one core and zero in the next.
    """
    ranks = check_ranks(rank, chain.d, chain.closed)
    cores = []
    for k, core in enumerate(chain.cores):
        left, *mode, right = core.shape
        rows, columns = max(ranks[k], left), max(ranks[k + 1], right)
        larger = core.new_zeros(rows, *mode, columns)
        larger[:left] = torch.randn_like(larger[:left]) * standard_deviation(core.detach())
        larger[:left, ..., :right] = core.detach()
        cores.append(larger)
    return type(chain)(cores, trainable=trainable)


def tensor_with_random_cores(shape: Sequence[int], rank: Rank = 8, std: float = 1.0, **options: Any) -> CoreChain:
    """A tensor whose core entries are drawn from N(0, std^2)."""
    return _random_cores(_tensor_spec(shape, rank, options), std)


def random_tensor(shape: Sequence[int], rank: Rank = 8, std: float = 1.0, **options: Any) -> CoreChain:
    """A random tensor whose entries have mean 0 and variance std^2."""
    return _random(_tensor_spec(shape, rank, options), std)


def tensor_const(
    shape: Sequence[int], rank: Rank = 8, value: float = 1.0, symmetric: bool = False, **options: Any
) -> CoreChain:
    """A tensor whose every entry is `value`; see `const_initializer`."""
    return _const(_tensor_spec(shape, rank, options), value, symmetric)


def tensor_zeros(shape: Sequence[int], rank: Rank = 8, **options: Any) -> CoreChain:
    """The zero tensor with all cores zero; see `zeros`."""
    return _const(_tensor_spec(shape, rank, options), 0.0, symmetric=True)


@dataclass
class _ChainSpec:
    """A chain to build: the modes of each core, (n_k, m_k) or (n_k,), the rank, and the options of this module."""

    modes: list[tuple[int, ...]]
    rank: Rank
    ring: bool = False
    trainable: bool = False
    freeze_cores: FreezeCores = None
    dtype: torch.dtype | None = None
    device: torch.device | str | None = None
    generator: torch.Generator | None = None

    def __post_init__(self):
        if self.dtype is not None and not self.dtype.is_floating_point:
            raise ShapeError(f"dtype is {self.dtype}; it must be floating-point")
        ranks = check_ranks(self.rank, len(self.modes), self.ring)
        self.bonds = math.prod(ranks[:-1])
        self.sizes = [(ranks[k], *mode, ranks[k + 1]) for k, mode in enumerate(self.modes)]

    def normal(self, size: Sequence[int], std: float) -> torch.Tensor:
        entries = torch.empty(tuple(size), dtype=self.dtype, device=self.device)
        if entries.is_meta:  # drawing takes a millisecond even where there is nothing to draw
            return entries
        return entries.normal_(generator=self.generator) * std

    def constant(self, size: Sequence[int], value: float) -> torch.Tensor:
        return torch.full(tuple(size), value, dtype=self.dtype or torch.get_default_dtype(), device=self.device)

    def chain(self, cores: Sequence[torch.Tensor]) -> CoreChain:
        kind = TensorRing if self.ring else TensorTrain
        return kind(cores, trainable=self.trainable, freeze_cores=self.freeze_cores)


def _matrix_spec(shape: MatrixShape, rank: Rank, options: dict[str, Any]) -> _ChainSpec:
    return _ChainSpec(list(zip(*check_matrix_shape(shape), strict=True)), rank, **options)


def _tensor_spec(shape: Sequence[int], rank: Rank, options: dict[str, Any]) -> _ChainSpec:
    return _ChainSpec([(n,) for n in check_tensor_shape(shape)], rank, **options)


def _random_cores(spec: _ChainSpec, std: float) -> CoreChain:
    if not 0 <= std < math.inf:
        raise ShapeError(f"std is {std}; it must be a number of at least 0")
    return spec.chain([spec.normal(size, std) for size in spec.sizes])


def _random(spec: _ChainSpec, std: float) -> CoreChain:
    """A chain whose entries have the standard deviation `std`.

    An entry is a sum of products of d core entries, one for each combination of bond indices, so its variance is the
    number of combinations times the d-th power of the cores' variance.
    """
    if not 0 <= std < math.inf:
        raise ShapeError(f"std is {std}; it must be a number of at least 0")
    d = len(spec.sizes)
    return _random_cores(spec, std ** (1 / d) * spec.bonds ** (-1 / (2 * d)))


def _const(spec: _ChainSpec, value: float, symmetric: bool) -> CoreChain:
    if not math.isfinite(value):
        raise ShapeError(f"value is {value}; it must be finite")
    d = len(spec.sizes)
    if not symmetric:
        # Ones, and the value in the last core: exact, of either sign, and with a gradient even at zero.
        ones = [spec.constant(mode, 1.0) for mode in spec.modes]
        return _in_channel_zero(spec, [*ones[:-1], ones[-1] * value])
    if value == 0 and spec.trainable and d > 1:
        raise ShapeError("trainable is true, but with all cores zero all gradients are zero; see zero_delta")
    size = (abs(value) / spec.bonds) ** (1 / d)
    cores = [spec.constant(shape, size) for shape in spec.sizes]
    return spec.chain([cores[0] * math.copysign(1, value), *cores[1:]])


def _in_channel_zero(spec: _ChainSpec, blocks: list[torch.Tensor]) -> CoreChain:
    """The chain of rank 1 with the cores `blocks`, in channel 0 of all bonds.

    Paths out of channel 0 are random and paths from other channels are zero, so no other path contributes at first.
    """
    cores = []
    for block, size in zip(blocks, spec.sizes, strict=True):
        core = spec.constant(size, 0.0)
        core[0] = spec.normal(size[1:], size[-1] ** -0.5)
        core[0, ..., 0] = block
        cores.append(core)
    return spec.chain(cores)
