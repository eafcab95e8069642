"""A warning for layers with more parameters than what they compress, and what would have fewer."""

import math
import warnings
from bisect import bisect_left
from collections.abc import Sequence

from t3nsor.automatic_shape import MOST_CORES
from t3nsor.errors import ShapeWarning
from t3nsor.shapes import auto_shape, parameter_count
from t3nsor.tensor_train import CoreChain


def warn_if_larger(layer: str, chain: CoreChain, sizes: Sequence[int]) -> None:
    """Warn, with ShapeWarning, if `chain` has more parameters than a dense matrix or vector.

    layer: the name of the class, whose constructor calls this function.
    sizes: (in_features, out_features) of the matrix, or (size,) of the vector.
    """
    dense = math.prod(sizes)
    if chain.numel() <= dense:
        return
    what = f"{layer} {' -> '.join(map(str, sizes))}"
    text = f"{what} has {chain.numel():,} parameters, a dense one {dense:,}; {_better(chain, sizes)}"
    warnings.warn(ShapeWarning(text), stacklevel=3)


def _better(chain: CoreChain, sizes: Sequence[int]) -> str:
    """What has fewer parameters than the dense matrix or vector, in words."""
    rank, dense = max(chain.ranks), math.prod(sizes)

    def shape(d: int, pad: bool) -> tuple[tuple[int, ...], ...]:
        return tuple(auto_shape(n, d, pad=pad) for n in sizes)

    def count(factors: Sequence[Sequence[int]], rank: int) -> int:
        return parameter_count(factors if len(sizes) == 2 else factors[0], rank, ring=chain.closed)

    found = []
    for pad in (False, True):
        d = min(range(2, MOST_CORES + 1), key=lambda d: count(shape(d, pad), rank))
        if pad and count(shape(chain.d, True), rank) < dense:
            d = chain.d
        if count(shape(d, pad), rank) < dense and (not pad or shape(d, True) != shape(d, False)):
            factors = " -> ".join(str(list(side)) for side in shape(d, pad))
            found.append(f"d={d}{', pad=True' if pad else ''} ({factors}) has {count(shape(d, pad), rank):,}")
    smaller = bisect_left(range(1, rank), dense, key=lambda r: count(chain.raw_shape, r))
    if not found and smaller:
        found = [f"rank={smaller} has {count(chain.raw_shape, smaller):,}"]
    return "; ".join(found) or "no rank and no d has fewer: use a dense one"
