"""Dense matrices of several trains whose cores are alike, built together: one product for all of them at each core.

Small layers, such as the two of an adapter, take less time and fewer kernels with a matrix that is built once, and kept
for the backward pass, than core by core.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import nn

from t3nsor.autocast import without_autocast
from t3nsor.cores import inputs_first, modes_of
from t3nsor.errors import ShapeError

Shape = tuple[int, ...]


def dense_matrices(trains: Sequence[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """Multiply the cores of each train into its matrix, (prod n_k, prod m_k); differentiable.

    trains: of each train its cores (r_{k-1}, n_k, m_k, r_k).

    Raises ShapeError unless the k-th cores of all trains have the same r_{k-1}, n_k * m_k and r_k.
    """
    shapes = [tuple(tuple(core.shape) for core in cores) for cores in trains]
    if not are_alike(*shapes):
        raise ShapeError(f"trains with cores of shapes {shapes}: the k-th of all need the same ranks and n_k * m_k")
    first, *others = (torch.stack([core.flatten(1, 2) for core in cores]) for cores in zip(*trains, strict=True))
    with without_autocast(first.device):
        product = first.squeeze(1)
        for core in others:
            product = torch.bmm(product, core.flatten(2)).reshape(len(trains), -1, core.shape[-1])
    matrices = zip(product.unbind(), trains, strict=True)
    return [inputs_first(matrix.reshape(modes_of(cores)), len(cores), trailing=0) for matrix, cores in matrices]


def dense_if_less_work(trains: Sequence[Sequence[torch.Tensor]], x: torch.Tensor) -> list[torch.Tensor] | None:
    """Return `dense_matrices`, or None if they cannot be multiplied together, or are more work for one of the trains.

    x: (.., features), what the first train is multiplied by; the others get as many rows.
    """
    shapes = tuple([tuple([core.shape for core in cores]) for cores in trains])
    if x.dim() == 0 or not _are_less_work(x.shape[-1], x.numel(), *shapes):
        return None
    return dense_matrices(trains) if all(_multiplies(core, x) for cores in trains for core in cores) else None


@lru_cache(maxsize=1024)
def _are_less_work(features: int, numbers: int, *trains: tuple[Shape, ...]) -> bool:
    """True if `dense_matrices` can multiply the trains, and x (.., features), of so many numbers, by all of them."""
    fits = features == math.prod(shape[1] for shape in trains[0])
    return fits and are_alike(*trains) and all(is_less_work(shapes, numbers // features) for shapes in trains)


def are_alike(*trains: tuple[Shape, ...]) -> bool:
    """True if `dense_matrices` can multiply trains with cores of these shapes together."""
    return len({tuple((left, n * m, right) for left, n, m, right in shapes) for shapes in trains}) == 1


def is_less_work(shapes: tuple[Shape, ...], rows: int) -> bool:
    """True if rows times the matrix of a train, with building it, takes no more multiplications than core after core.

    shapes: (r_{k-1}, n_k, m_k, r_k) of each core.
    """
    inputs, outputs = ([shape[axis] for shape in shapes] for axis in (1, 2))

    def state(sides: Sequence[Sequence[int]], k: int) -> int:
        """Modes of a state beside core k: sides[0] of those before it, sides[1] of those behind it."""
        return math.prod(sides[0][:k]) * math.prod(sides[1][k + 1 :])

    sizes = list(enumerate(map(math.prod, shapes)))
    by_core = min(sum(size * state(sides, k) for k, size in sizes) for sides in ((outputs, inputs), (inputs, outputs)))
    building = sum(size * math.prod(inputs[:k]) * math.prod(outputs[:k]) for k, size in sizes[1:])
    return rows * math.prod(inputs) * math.prod(outputs) + building <= rows * by_core


def _multiplies(core: torch.Tensor, x: torch.Tensor) -> bool:
    """True for a core that products with x, after others in the core's precision, are made of.

    Not for part of a core that lies on several devices, nor in half precision, where each product would be rounded.
    """
    fits = core.dtype == x.dtype or (core.dtype == torch.float32 and x.dtype in (torch.bfloat16, torch.float16))
    return type(core) in (nn.Parameter, torch.Tensor) and core.dtype.itemsize >= 4 and fits and core.device == x.device
