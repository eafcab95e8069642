"""Factorise dimensions into the modes of cores, count the parameters of a shape, and bound its matrix rank."""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

from t3nsor.errors import ShapeError

MatrixShape = Sequence[Sequence[int]]  # ((n_1, .., n_d), (m_1, .., m_d))
Rank = int | Sequence[int]  # see `check_ranks`

MODES = ("ascending", "descending", "mixed")
CRITERIA = ("entropy", "variance")


def factorisations(n: int, d: int) -> Iterator[tuple[int, ...]]:
    """Yield every ascending tuple of `d` factors whose product is `n`."""
    low = [k for k in range(1, math.isqrt(n) + 1) if n % k == 0]
    divisors = low + [n // k for k in reversed(low) if k * k < n]

    def splits(n: int, parts: int, start: int) -> Iterator[tuple[int, ...]]:
        """Yield the ascending tuples of `parts` factors of n, each from divisors[start:]."""
        if parts == 1:
            yield (n,)
            return
        for position in range(start, len(divisors)):
            factor = divisors[position]
            if factor**parts > n:
                return
            if n % factor == 0:
                for rest in splits(n // factor, parts - 1, position):
                    yield (factor, *rest)

    # Ones are added separately: a number has at most log2(n) factors above 1, however large d is.
    for parts in range(1, min(d, max(n.bit_length() - 1, 1)) + 1):
        for proper in splits(n, parts, 1):
            yield (1,) * (d - parts) + proper


def auto_shape(
    n: int, d: int = 3, criterion: str = "entropy", mode: str = "ascending", pad: bool = False
) -> tuple[int, ...]:
    """Split `n` into `d` factors that are as equal as possible.

    n: the dimension, at least 1; a prime gives (1, .., 1, n) unless it may be padded.
    d: number of factors, at least 1.
    criterion: "entropy" takes the split whose normalised factors have the highest entropy, "variance" the one
        whose factors vary least.
    mode: order of the factors: "ascending", "descending" or "mixed" (smallest, largest, second smallest, ..).
    pad: True to split the next number that splits well, as `suggest_shape` does, where `n` does not.

    Raises ShapeError for other arguments.

    >>> auto_shape(768), auto_shape(3072)
    ((8, 8, 12), (12, 16, 16))
    """
    if pad:
        return suggest_shape(n, d, criterion, mode)
    _check_whole("auto_shape", n=n, d=d)
    if criterion not in CRITERIA:
        raise ShapeError(f"auto_shape: criterion is {criterion!r}; allowed: {', '.join(CRITERIA)}")
    if mode not in MODES:
        raise ShapeError(f"auto_shape: mode is {mode!r}; allowed: {', '.join(MODES)}")
    ascending = _most_equal(n, d, criterion)
    if mode == "ascending":
        return ascending
    if mode == "descending":
        return ascending[::-1]
    return tuple(ascending[k // 2] if k % 2 == 0 else ascending[-1 - k // 2] for k in range(d))


def suggest_shape(n: int, d: int = 3, criterion: str = "entropy", mode: str = "ascending") -> tuple[int, ...]:
    """Return `auto_shape` of the smallest number, at least `n`, that splits well, for tables that may be padded.

    A split is good when no factor exceeds twice the d-th root of n, rounded up. Arguments as for `auto_shape`.

    >>> suggest_shape(768), suggest_shape(257)
    ((8, 8, 12), (4, 5, 13))
    """
    _check_whole("suggest_shape", n=n, d=d)
    root = max(1, round(n ** (1 / d)))
    while root**d < n:
        root += 1
    padded = n
    while not _is_smooth(padded, 2 * root) or max(auto_shape(padded, d, criterion, mode)) > 2 * root:
        padded += 1
    return auto_shape(padded, d, criterion, mode)


def skewed_shape(
    in_features: int, out_features: int, q: int | None = None, pad: bool = False
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the shape ((in / q, q), (q, out / q)) of two cores.

    A train of rank r then has the r * (in + out) parameters of LoRA of rank r, and reaches matrix rank r * q^2 (see
    `max_rank`): each of its r Kronecker products has the rank q of one factor times the rank q of the other.

    in_features, out_features: sizes of the matrix.
    q: a common divisor of both sizes; None: the one nearest to 8, and above 1 if possible.
    pad: True to pad both sizes to multiples of q, or of 8 if q is None and no common divisor is between 4 and 16.

    Raises ShapeError if q does not divide both.

    >>> skewed_shape(768, 3072)
    ((96, 8), (8, 384))
    """
    _check_whole("skewed_shape", in_features=in_features, out_features=out_features)
    if pad:
        wanted = 8 if q is None else q
        _check_whole("skewed_shape", q=wanted)
        if q is not None or not any(math.gcd(in_features, out_features) % k == 0 for k in range(4, 17)):
            in_features, out_features = (-(-size // wanted) * wanted for size in (in_features, out_features))
    common = math.gcd(in_features, out_features)
    if q is None:
        q = min((k for k in range(1, common + 1) if common % k == 0), key=lambda k: (k == 1, abs(k - 8), k))
    _check_whole("skewed_shape", q=q)
    if common % q:
        raise ShapeError(
            f"skewed_shape: q is {q}; it must divide both in_features {in_features} and out_features {out_features}"
        )
    return (in_features // q, q), (q, out_features // q)


def parameter_count(shape: Sequence, rank: Rank, d: int | None = None, ring: bool = False) -> int:
    """Count the parameters of a train or, if `ring`, a ring, without building it.

    shape: ((n_1, .., n_d), (m_1, .., m_d)) of a matrix or (n_1, .., n_d) of a tensor; with `d` given
        (in_features, out_features), which `auto_shape` splits into d factors each.
    rank: see `check_ranks`.
    """
    if d is not None:
        try:
            in_features, out_features = shape
        except (TypeError, ValueError):
            raise ShapeError(f"parameter_count: shape is {shape!r}; with d it is (in_features, out_features)") from None
        shape = auto_shape(in_features, d), auto_shape(out_features, d)
    modes = core_modes(shape)
    ranks = check_ranks(rank, len(modes), ring)
    return sum(ranks[k] * math.prod(mode) * ranks[k + 1] for k, mode in enumerate(modes))


def best_d(
    in_features: int, out_features: int, rank: Rank, ring: bool = False, d_max: int = 6, pad: bool = False
) -> int:
    """Return the number of cores, up to `d_max`, that needs the fewest parameters with shapes from `auto_shape`.

    rank: one rank for all bonds. d = 1, for a train the dense matrix, wins where no split pays, as for primes.
    """
    _check_whole("best_d", d_max=d_max)

    def count(d: int) -> int:
        return parameter_count(
            (auto_shape(in_features, d, pad=pad), auto_shape(out_features, d, pad=pad)), rank, ring=ring
        )

    return min(range(1, d_max + 1), key=count)


def useful_ranks(shape: Sequence, rank: Rank, ring: bool = False) -> list[int]:
    """Return the d - 1 inner ranks of a train, each cut to what the unfolding at its bond can use.

    A ring has no such bound: its d ranks are returned unchanged. Arguments as for `parameter_count`.
    """
    sizes = [math.prod(mode) for mode in core_modes(shape)]
    ranks = check_ranks(rank, len(sizes), ring)
    if ring:
        return list(ranks[:-1])
    return [min(r, math.prod(sizes[:k]), math.prod(sizes[k:])) for k, r in enumerate(ranks[1:-1], start=1)]


def max_rank(shape: MatrixShape, rank: Rank, ring: bool = False) -> int:
    """Return the largest rank that a matrix in tensor-train (or ring) form of this shape and rank can have.

    shape: ((n_1, .., n_d), (m_1, .., m_d)).
    rank: see `check_ranks`.

    Any split of the cores into an in side and an out side bounds the rank by the product of what it cuts: m_k of the
    first, n_k of the second, and the bonds between the two. This is the smallest such product, the minimum cut of the
    network: an upper bound for all cores, which random ones reach except for rare shapes that stay a little below.

    >>> max_rank(((96, 8), (8, 384)), 2), max_rank(((24, 32), (48, 64)), 2)
    (128, 768)
    """
    rows, columns = check_matrix_shape(shape)
    d = len(rows)
    ranks = check_ranks(rank, d, ring)
    cuts = []
    for first_side in (0, 1):
        # best[side]: the smallest product so far with the current core on the in side (0) or the out side (1).
        best = {first_side: (columns[0], rows[0])[first_side]}
        for k in range(1, d):
            best = {
                side: min(cut * (1 if side == before else ranks[k]) for before, cut in best.items()) * own
                for side, own in enumerate((columns[k], rows[k]))
            }
        cuts += [cut * (1 if side == first_side else ranks[d]) for side, cut in best.items()]
    return min(cuts)


def check_matrix_shape(
    shape: MatrixShape, in_features: int | None = None, out_features: int | None = None, pad: bool = False
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return `shape` as two tuples ((n_1, .., n_d), (m_1, .., m_d)), or raise ShapeError.

    The products of the two lists must equal `in_features` and `out_features` where those are given; with `pad` they may
    be larger.
    """
    try:
        rows, columns = (tuple(side) for side in shape)
    except (TypeError, ValueError):
        raise ShapeError(f"shape is {shape!r}; it must be [[in factors], [out factors]]") from None
    _check_factors((*rows, *columns), shown := f"{list(rows)} -> {list(columns)}")
    if not rows or len(rows) != len(columns):
        raise ShapeError(
            f"shape {shown} has {len(rows)} in and {len(columns)} out factors; "
            "both lists need the same length, at least 1"
        )
    for side, factors, size in (("in", rows, in_features), ("out", columns, out_features)):
        product = math.prod(factors)
        if size is not None and (product < size or (product > size and not pad)):
            more = "; with pad it may be smaller, not larger" if pad else ""
            raise ShapeError(
                f"shape {shown}: the {side} factors multiply to {product}, the {side}put dimension is {size}{more}"
            )
    return rows, columns


def check_tensor_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Return `shape` as the tuple (n_1, .., n_d), or raise ShapeError."""
    try:
        sizes = tuple(shape)
    except TypeError:
        raise ShapeError(f"shape is {shape!r}; the shape of a tensor is a list of whole numbers") from None
    if not sizes:
        raise ShapeError("shape is empty; a tensor needs at least one dimension")
    _check_factors(sizes, list(sizes))
    return sizes


def core_modes(shape: Sequence) -> list[tuple[int, ...]]:
    """The modes of each core: [(n_1, m_1), ..] for a matrix shape, [(n_1,), ..] for a tensor shape."""
    if isinstance(shape, (tuple, list)) and shape and all(isinstance(side, (tuple, list)) for side in shape):
        return list(zip(*check_matrix_shape(shape), strict=True))
    return [(n,) for n in check_tensor_shape(shape)]


def check_ranks(rank: Rank, d: int, closed: bool = False) -> tuple[int, ...]:
    """Return all ranks (r_0, .., r_d) of a chain of `d` cores.

    rank: one rank for every bond, or a list: the d - 1 inner ranks of a train (r_0 = r_d = 1) or, if `closed`, the d
        ranks (r_0, .., r_{d-1}) of a ring (r_d = r_0).

    Raises ShapeError for another number of ranks, or a rank below 1.
    """
    count, kind = (d, "") if closed else (d - 1, "inner ")
    try:
        bonds = (rank,) * count if isinstance(rank, int) else tuple(rank)
    except TypeError:
        raise ShapeError(f"rank is {rank!r}; it must be one whole number or a list of them") from None
    if len(bonds) != count:
        raise ShapeError(f"rank {rank!r} gives {len(bonds)} {kind}ranks; {d} cores have {count}")
    for r in (*bonds, rank) if isinstance(rank, int) else bonds:
        if isinstance(r, bool) or not isinstance(r, int) or r < 1:
            raise ShapeError(f"rank is {rank!r}; ranks are whole numbers of at least 1")
    return (*bonds, bonds[0]) if closed else (1, *bonds, 1)


def _check_whole(function: str, **values: object) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ShapeError(f"{function}: {name} is {value!r}; it must be a whole number of at least 1")


def _check_factors(factors: Sequence[int], shown: object) -> None:
    for factor in factors:
        if isinstance(factor, bool) or not isinstance(factor, int) or factor < 1:
            raise ShapeError(f"shape {shown} holds {factor!r}; factors are whole numbers of at least 1")


def _is_smooth(n: int, bound: int) -> bool:
    """True if no prime factor of `n` exceeds `bound`."""
    for factor in range(2, bound + 1):
        while n % factor == 0:
            n //= factor
        if n == 1:
            break
    return n == 1


@lru_cache
def _most_equal(n: int, d: int, criterion: str) -> tuple[int, ...]:
    def entropy(factors):
        total = sum(factors)
        return math.log(total) - sum(f * math.log(f) for f in factors if f > 1) / total

    def variance(factors):
        # d^2 times the variance is d * sum f^2 - (sum f)^2, an integer.
        return sum(factors) ** 2 - d * sum(f * f for f in factors)

    return max(factorisations(n, d), key=entropy if criterion == "entropy" else variance)
