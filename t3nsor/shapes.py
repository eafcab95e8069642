"""Factorisation of a dimension into the modes of a tensor train."""

import math
from collections.abc import Iterator

from t3nsor.errors import ShapeError

MODES = ("ascending", "descending", "mixed")
CRITERIA = ("entropy", "variance")


def factorisations(n: int, d: int, smallest: int = 1) -> Iterator[tuple[int, ...]]:
    """Yield every ascending tuple of `d` factors, none below `smallest`, whose product is `n`."""
    if d == 1:
        if n >= smallest:
            yield (n,)
        return
    factor = smallest
    while factor**d <= n:
        if n % factor == 0:
            for rest in factorisations(n // factor, d - 1, factor):
                yield (factor, *rest)
        factor += 1


def auto_shape(n: int, d: int = 3, criterion: str = "entropy", mode: str = "ascending") -> tuple[int, ...]:
    """Split `n` into `d` factors that are as equal as they can be.

    n: the dimension, at least 1; a prime gives (1, .., 1, n).
    criterion: "entropy" takes the split whose normalised factors have the highest entropy, "variance" the one
        whose factors vary least.
    mode: order of the factors: "ascending", "descending" or "mixed" (smallest, largest, second smallest, ..).

    >>> auto_shape(768), auto_shape(3072)
    ((8, 8, 12), (12, 16, 16))
    """
    for name, value in (("n", n), ("d", d)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ShapeError(f"auto_shape: {name} is {value!r}; it must be a whole number of at least 1")
    if criterion not in CRITERIA:
        raise ShapeError(f"auto_shape: criterion is {criterion!r}; allowed: {', '.join(CRITERIA)}")
    if mode not in MODES:
        raise ShapeError(f"auto_shape: mode is {mode!r}; allowed: {', '.join(MODES)}")
    score = _entropy if criterion == "entropy" else lambda factors: -_variance(factors)
    ascending = max(factorisations(n, d), key=score)
    if mode == "ascending":
        return ascending
    if mode == "descending":
        return ascending[::-1]
    return tuple(ascending[k // 2] if k % 2 == 0 else ascending[-1 - k // 2] for k in range(d))


def _entropy(factors: tuple[int, ...]) -> float:
    total = sum(factors)
    return -sum(f / total * math.log(f / total) for f in factors)


def _variance(factors: tuple[int, ...]) -> float:
    mean = sum(factors) / len(factors)
    return sum((f - mean) ** 2 for f in factors) / len(factors)


def check_matrix_shape(shape, in_features: int | None = None, out_features: int | None = None):
    """Return `shape` as two tuples ((n_1, .., n_d), (m_1, .., m_d)), or raise ShapeError.

    The products of the two lists must be `in_features` and `out_features` where those are given.
    """
    try:
        rows, columns = (tuple(side) for side in shape)
    except (TypeError, ValueError):
        raise ShapeError(f"shape is {shape!r}; it must be [[in factors], [out factors]]") from None
    for factor in (*rows, *columns):
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ShapeError(f"shape {_show(rows, columns)} holds {factor!r}; factors are whole numbers of at least 1")
    if not rows or len(rows) != len(columns):
        raise ShapeError(
            f"shape {_show(rows, columns)} has {len(rows)} in and {len(columns)} out factors; "
            "both lists need the same length, at least 1"
        )
    for side, factors, size in (("in", rows, in_features), ("out", columns, out_features)):
        if size is not None and math.prod(factors) != size:
            raise ShapeError(
                f"shape {_show(rows, columns)}: the {side} factors multiply to {math.prod(factors)}, "
                f"the {side}put dimension is {size}"
            )
    return rows, columns


def check_ranks(rank, d: int) -> tuple[int, ...]:
    """Return all ranks (r_0, .., r_d) of a train of `d` cores from one inner rank or the list of d - 1 inner ranks."""
    inner = (rank,) * (d - 1) if isinstance(rank, int) else tuple(rank)
    if len(inner) != d - 1:
        raise ShapeError(f"rank {rank!r} gives {len(inner)} inner ranks; {d} cores have {d - 1}")
    for r in (*inner, rank) if isinstance(rank, int) else inner:
        if isinstance(r, bool) or not isinstance(r, int) or r < 1:
            raise ShapeError(f"rank is {rank!r}; ranks are whole numbers of at least 1")
    return (1, *inner, 1)


def _show(rows, columns) -> str:
    return f"{list(rows)} -> {list(columns)}"
