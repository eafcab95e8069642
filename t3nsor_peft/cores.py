"""The cores of one adapter in one layer, and the shape that they have."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import nn

from t3nsor import ShapeError, glorot_initializer, zero_delta
from t3nsor.shapes import check_matrix_shape, check_ranks


class CoreShape(NamedTuple):
    """((n_1, .., n_d), (m_1, .., m_d)) and the ranks: d - 1 inner ones, or the d of a ring."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    ranks: tuple[int, ...]

    @classmethod
    def checked(cls, given: Sequence[Sequence[int]], in_features: int, out_features: int, ring: bool) -> Self:
        """Return a shape read from a file. Raises ShapeError unless it is one of a matrix of these sizes."""
        if not isinstance(given, (list, tuple)) or len(given) != 3:
            raise ShapeError(f"shape is {given!r}; it must be [[in factors], [out factors], [ranks]]")
        rows, columns = check_matrix_shape(given[:2], in_features, out_features)
        ranks = check_ranks(given[2], len(rows), ring)
        return cls(rows, columns, ranks[:-1] if ring else ranks[1:-1])

    @property
    def matrix(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self.rows, self.columns

    def to_json(self) -> list[list[int]]:
        return [list(part) for part in self]


class NamedCores(nn.Module):
    """Parameters `core_0`, `core_1`, ..: (r_{k-1}, n_k, m_k, r_k).

    peft 0.20 puts the name of the adapter into a key by replacing its last part wherever that occurs, so a bare number
    would not do.
    frozen: indices of the cores that are never trained.
    """

    def __init__(self, cores: Sequence[torch.Tensor], frozen: Sequence[int] = ()):
        super().__init__()
        self.names = tuple(f"core_{k}" for k in range(len(cores)))
        self.frozen = tuple(frozen)
        for name, core in zip(self.names, cores, strict=True):
            self.register_parameter(name, nn.Parameter(core.detach().clone(memory_format=torch.contiguous_format)))

    def forward(self) -> list[torch.Tensor]:
        """The cores. Whoever computes with them calls this, so that hooks can load what is offloaded."""
        return list(self)

    def freeze(self) -> None:
        """Freeze again what is never trained."""
        for k in self.frozen:
            getattr(self, self.names[k]).requires_grad_(False)

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (getattr(self, name) for name in self.names)

    def extra_repr(self) -> str:
        return ", ".join("x".join(map(str, core.shape)) for core in self)


def computable(cores: Sequence[torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """The cores in a dtype that can be multiplied with x: as they are, or converted to that of x.

    Float32 cores stay so beside x in half precision: the contraction rounds them where it uses them.
    """
    kept = {x.dtype, torch.float32} if x.dtype.itemsize == 2 else {x.dtype}
    return [core if core.dtype in kept else core.to(x.dtype) for core in cores]


def converted(cores: Iterable[torch.Tensor], dtype: torch.dtype | None) -> list[torch.Tensor]:
    """The cores in `dtype`; None: as they are."""
    return list(cores) if dtype is None else [core.to(dtype) for core in cores]


def exact_dtype(device: torch.device) -> torch.dtype:
    """Float64, in which updates are merged and summed, or float32 on devices without it."""
    return torch.float32 if device.type == "mps" else torch.float64


def initial_cores(shape: CoreShape, ring: bool, frozen: Sequence[int] = (), zero: bool = True) -> list[torch.Tensor]:
    """Cores that are random with Glorot's variance, but for the last one that is trained, which is zero.

    frozen: indices of the cores that are not trained.
    zero: False for random ones only.
    Raises ShapeError if all are frozen.
    """
    options: dict[str, Any] = {"ring": ring, "dtype": torch.float32}
    trained = [k for k in range(len(shape.rows)) if k not in frozen]
    if not trained:
        raise ShapeError(f"freeze_cores names all {len(shape.rows)} cores; one must be trained")
    if not zero:
        return list(glorot_initializer(shape.matrix, list(shape.ranks), **options).cores)
    return list(zero_delta(shape.matrix, list(shape.ranks), zero=trained[-1], **options).cores)
