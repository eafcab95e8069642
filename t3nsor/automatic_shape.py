"""The shape of a linear layer of which only the two sizes are given."""

from t3nsor.contraction.cost_model import choose_plan, cost
from t3nsor.contraction.plans import ContractionSpec
from t3nsor.errors import ShapeError
from t3nsor.machine import ASSUMED
from t3nsor.shapes import MODES, Rank, auto_shape, best_d, check_ranks, skewed_shape

SHAPE_MODES = (*MODES, "skewed")
MOST_CORES = 6


def linear_shape(
    in_features: int,
    out_features: int,
    *,
    rank: Rank = 8,
    d: int | str | None = None,
    mode: str = "ascending",
    ring: bool = False,
    pad: bool = False,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return a shape ((n_1, .., n_d), (m_1, .., m_d)) for a matrix in_features -> out_features.

    rank: see `check_ranks`; one rank for all bonds if `d` is "auto" or "fastest".
    d: the number of cores; None: 3, or 2 if `mode` is "skewed"; "auto": the one with the fewest parameters; "fastest":
        the one whose forward and backward passes the cost model predicts to be cheapest, for 1,024 rows in float32 on a
        CPU.
    mode: order of the factors, see `auto_shape`; "skewed": `skewed_shape`, which has two cores.
    ring: True for a tensor ring.
    pad: True to allow sizes above in_features and out_features that split better, see `auto_shape`.

    Raises ShapeError for other arguments.

    >>> linear_shape(768, 3072), linear_shape(768, 3072, d=2, mode="skewed")
    (((8, 8, 12), (12, 16, 16)), ((96, 8), (8, 384)))
    """
    if mode not in SHAPE_MODES:
        raise ShapeError(f"auto_shape_mode is {mode!r}; allowed: {', '.join(SHAPE_MODES)}")
    if mode == "skewed":
        if d not in (None, 2, "auto", "fastest"):
            raise ShapeError(f"d is {d!r}; a skewed shape has 2 cores")
        return skewed_shape(in_features, out_features, pad=pad)
    if d is None:
        d = 3
    elif d == "auto":
        d = best_d(in_features, out_features, rank, ring, MOST_CORES, pad)
    elif d == "fastest":
        d = min(range(2, MOST_CORES + 1), key=lambda d: _seconds(in_features, out_features, rank, d, ring, pad))
    if isinstance(d, str):
        raise ShapeError(f"d is {d!r}; it must be a number of cores, 'auto' or 'fastest'")
    return auto_shape(in_features, d, mode=mode, pad=pad), auto_shape(out_features, d, mode=mode, pad=pad)


def _seconds(in_features: int, out_features: int, rank: Rank, d: int, ring: bool, pad: bool) -> float:
    """The predicted seconds of a forward and a backward pass, which do not depend on the machine: a shape must not."""
    rates = ASSUMED["cpu", 4]
    ranks = check_ranks(rank, d, ring)
    inputs, outputs = auto_shape(in_features, d, pad=pad), auto_shape(out_features, d, pad=pad)
    spec = ContractionSpec(inputs, outputs, ranks, ring, rows=1024)
    return cost(spec, choose_plan(spec, "auto", True, rates), True, rates)
