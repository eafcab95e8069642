"""Matrices and tensors as trains (Oseledets 2011, https://doi.org/10.1137/090752286) or rings of cores (Zhao et al.
2016, https://arxiv.org/abs/1606.05535)."""

import math
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import overload

import torch
from torch import nn

from t3nsor import arithmetic
from t3nsor.cores import FreezeCores, check_cores, close_cores, frozen_indices
from t3nsor.errors import ShapeError
from t3nsor.shapes import Rank, check_ranks


class Cores(nn.Module):
    """The cores of a chain, a sequence with the state-dict keys 0, 1, ..

    trainable: True makes each core a parameter, False a buffer.
    frozen: indices of the parameters that need no gradient.
    """

    def __init__(self, cores: Sequence[torch.Tensor], trainable: bool, frozen: Sequence[int] = ()):
        super().__init__()
        self.names = tuple(map(str, range(len(cores))))
        for k, core in enumerate(cores):
            if not trainable:
                self.register_buffer(str(k), core)
                continue
            if isinstance(core, nn.Parameter):
                parameter = core
            else:
                parameter = nn.Parameter(core.detach().clone(memory_format=torch.contiguous_format))
            if k in frozen:
                parameter.requires_grad_(False)
            self.register_parameter(str(k), parameter)

    def forward(self) -> list[torch.Tensor]:
        """The cores. Whoever computes with them calls this, so that hooks can load what is offloaded."""
        own: dict = self._parameters  # looked up here first: nn.Module's own way takes as long as a small product
        return [own[name] if name in own else getattr(self, name) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return list(self)[index]
        if not -len(self) <= index < len(self):
            raise IndexError(f"core {index} of {len(self)}")
        return getattr(self, str(index % len(self)))

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (getattr(self, name) for name in self.names)  # looked up by name: a core may be parametrized or replaced


class CoreChain(nn.Module):
    """A matrix or tensor whose every entry is a product of slices, one of each core: a `TensorTrain` or `TensorRing`.

    cores: d tensors (r_{k-1}, n_k, r_k) for a tensor n_1 x .. x n_d, or (r_{k-1}, n_k, m_k, r_k) for a matrix with
        n_1 * .. * n_d rows and m_1 * .. * m_d columns.
    trainable: True makes the cores parameters, `cores.0`, `cores.1`, ..; given parameters are kept as the same objects,
        other tensors are copied. False makes them buffers, which keep their gradient history: every operation is
        differentiable, and returns a chain that is not trainable.
    freeze_cores: None, "first", "last" or a list of indices of cores that a trainable chain never trains.

    As in any module, `.to()`, `.double()` and the like work in place.
    Raises ShapeError when cores do not fit together.
    """

    closed: bool

    def __init__(self, cores: Sequence[torch.Tensor], *, trainable: bool = False, freeze_cores: FreezeCores = None):
        super().__init__()
        cores, name = list(cores), type(self).__name__
        check_cores(cores, self.closed, name)
        if freeze_cores is not None and not trainable:
            raise ShapeError(f"{name}: freeze_cores is {freeze_cores!r}, but trainable is false; leave one of them out")
        self.trainable = trainable
        self.frozen_cores = frozen_indices(freeze_cores, len(cores), name)
        self.cores = Cores(cores, trainable, self.frozen_cores)

    @property
    def d(self) -> int:
        """Number of cores."""
        return len(self.cores)

    @property
    def is_matrix(self) -> bool:
        return self.cores[0].dim() == 4

    @property
    def ranks(self) -> tuple[int, ...]:
        """(r_0, .., r_d)."""
        return (*(core.shape[0] for core in self.cores), self.cores[-1].shape[-1])

    @property
    def raw_shape(self) -> tuple[tuple[int, ...], ...]:
        """((n_1, .., n_d),) of a tensor, ((n_1, .., n_d), (m_1, .., m_d)) of a matrix."""
        return tuple(zip(*(tuple(core.shape[1:-1]) for core in self.cores), strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `full()`."""
        return tuple(map(math.prod, self.raw_shape)) if self.is_matrix else self.raw_shape[0]

    @property
    def dtype(self) -> torch.dtype:
        return self.cores[0].dtype

    @property
    def device(self) -> torch.device:
        return self.cores[0].device

    @property
    def inner_ranks(self) -> list[int]:
        """The ranks as initialisers take them: r_1 .. r_{d-1} of a train, r_0 .. r_{d-1} of a ring."""
        return list(self.ranks[:-1] if self.closed else self.ranks[1:-1])

    def numel(self) -> int:
        """Number of stored entries in all cores."""
        return sum(core.numel() for core in self.cores)

    @torch.no_grad()
    def copy_(self, other: "CoreChain") -> None:
        """Overwrite the cores by those of a chain of the same shape and ranks."""
        for core, value in zip(self.cores, other.cores, strict=True):
            core.copy_(value)

    def full(self) -> torch.Tensor:
        """The dense tensor (n_1, .., n_d), or the dense matrix (prod n_k, prod m_k)."""
        return close_cores(self._matrix_cores()).reshape(self.shape)

    def gather_rows(self, index: torch.Tensor) -> torch.Tensor:
        """Return rows of the matrix, or entries of the tensor, without building the dense table.

        index: integers of any shape, from 0 to in - 1; for a tensor positions in its flattened entries.

        Returns (*index.shape, out), or (*index.shape,) for a tensor.
        Raises ShapeError for an index out of range, where it can be checked: not on a GPU, nor under torch.compile.
        """
        cores, name = self._matrix_cores(), type(self).__name__
        index = torch.as_tensor(index, device=cores[0].device)
        if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
            raise ShapeError(f"{name}: gather_rows: the index is {index.dtype}; it must hold whole numbers")
        rows = self.shape[0] if self.is_matrix else math.prod(self.shape)
        if index.device.type == "cpu" and index.numel() and not torch.compiler.is_compiling():
            low, high = index.min().item(), index.max().item()
            if low < 0 or high >= rows:
                raise ShapeError(f"{name}: gather_rows: indices from {low} to {high}; allowed: 0 to {rows - 1}")
        gathered = arithmetic.gather_rows(cores, index.long())
        return gathered if self.is_matrix else gathered.squeeze(-1)

    def transpose(self) -> "CoreChain":
        """The transposed matrix, (out, in). Raises ShapeError for a tensor."""
        if not self.is_matrix:
            raise ShapeError(f"transpose: {self!r} is a tensor; it must be a matrix")
        return type(self)([core.transpose(1, 2) for core in self.cores.forward()])

    @property
    def T(self) -> "CoreChain":
        """The transposed matrix; a tensor has no attribute T, as torch.jit.trace asks modules for all they have."""
        if not self.is_matrix:
            raise AttributeError("T")
        return self.transpose()

    def __add__(self, other):
        if not isinstance(other, CoreChain):
            return NotImplemented
        self._check_same_kind(other, "+")
        return type(self)(arithmetic.add(self.cores.forward(), other.cores(), self.closed))

    def __sub__(self, other):
        return self + -other if isinstance(other, CoreChain) else NotImplemented

    def __neg__(self):
        return self * -1

    def __mul__(self, other):
        if isinstance(other, CoreChain):
            return self.hadamard(other)
        if isinstance(other, Real):
            other = float(other)
        elif not isinstance(other, torch.Tensor) or other.dim() or other.is_complex():
            return NotImplemented
        return type(self)(arithmetic.scale(self.cores.forward(), other))

    __rmul__ = __mul__

    def hadamard(self, other: "CoreChain") -> "CoreChain":
        """The entrywise product; ranks multiply."""
        self._check_same_kind(other, "hadamard")
        return type(self)(arithmetic.hadamard(self.cores.forward(), other.cores()))

    def dot(self, other: "CoreChain") -> torch.Tensor:
        """The sum of the entrywise product, a tensor without dimensions."""
        self._check_same_kind(other, "dot")
        return arithmetic.dot(self.cores.forward(), other.cores())

    def norm(self) -> torch.Tensor:
        """The Frobenius norm, a tensor without dimensions.

        For a train to working precision; for a ring the root of `dot`, where cancellation costs half the digits.
        """
        return arithmetic.norm(self.cores.forward(), self.closed)

    def round(self, eps: float | None = None, rank: Rank | None = None) -> "CoreChain":
        """Return a chain of lower rank close to this one; give `eps`, `rank` or both.

        eps: bound on the relative error in the Frobenius norm, kept where `rank` allows it.
        rank: bound on every rank, or the list of bounds: d - 1 inner ranks of a train, r_0 .. r_{d-1} of a ring.

        The ranks of a train come out as small as `eps` allows in each unfolding; those of a ring may be larger than
        needed: one tensor has rings of very different ranks, and this looks only near the given one. Gradients need
        cores of full rank, and there is no second derivative.
        """
        name = type(self).__name__
        if eps is None and rank is None:
            raise ShapeError(f"{name}: round needs eps, rank or both")
        if eps is not None and not eps >= 0:
            raise ShapeError(f"{name}: round: eps is {eps}; it must be at least 0")
        bounds = check_ranks(arithmetic.UNBOUNDED if rank is None else rank, self.d, self.closed)
        return type(self)(arithmetic.round_cores(self.cores.forward(), self.closed, eps or 0.0, bounds))

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """Keep fused kernels of torch, which read weights instead of calling layers, away from chains."""
        raise TypeError(
            f"{function.__name__} reads the weight of a layer, which is a {cls.__name__} and no tensor, instead of "
            "calling the layer: keep a dense layer there, or give the tensor full()"
        )

    def _matrix_cores(self) -> list[torch.Tensor]:
        cores = self.cores.forward()
        return cores if self.is_matrix else [core.unsqueeze(2) for core in cores]

    def _check_same_kind(self, other: object, operation: str) -> None:
        if not isinstance(other, CoreChain):
            raise ShapeError(
                f"{operation}: both sides must be trains or rings; they are {self!r} and a {type(other).__name__}"
            )
        if any(getattr(self, name) != getattr(other, name) for name in ("closed", "raw_shape", "dtype", "device")):
            sides = " and ".join(f"{side!r}, {side.dtype}, {side.device}" for side in (self, other))
            raise ShapeError(f"{operation}: both sides need the same kind, shape, dtype and device: {sides}")

    def __repr__(self) -> str:
        sides = " -> ".join("x".join(map(str, side)) for side in self.raw_shape)
        entries = math.prod(self.shape)
        notes = ", trainable" if self.trainable else ""
        notes += f", frozen cores {list(self.frozen_cores)}" if self.frozen_cores else ""
        return (
            f"{type(self).__name__}({sides}, ranks={self.ranks}, {self.numel()} parameters for {entries} entries, "
            f"compression {entries / self.numel():.1f}x{notes})"
        )


class TensorTrain(CoreChain):
    """An open chain: r_0 = r_d = 1. Arguments as for `CoreChain`."""

    closed = False


class TensorRing(CoreChain):
    """A closed chain: r_0 = r_d, and this bond is summed over too. Arguments as for `CoreChain`."""

    closed = True
