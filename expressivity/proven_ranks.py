"""What is proven about the separation rank of a plain train: a score function that is linear in each of its positions.

Every train: the rank is at most the minimum cut of its chain of cores; for a split at one bond, that bond's rank
(Oseledets 2011, https://doi.org/10.1137/090752286). Almost every train: it is at least what any one train reaches, as
those below a given rank solve polynomial equations. Khrulkov, Novikov and Oseledets 2018, Theorem 1,
https://arxiv.org/abs/1711.00811, has such a train for odd against even positions, of rank min(n, r)^(N/2). This is a
lower bound, which random trains exceed if 1 < r < n.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from expressivity.separation_rank import Left, left_side
from t3nsor.shapes import Rank, check_ranks, check_tensor_shape


@dataclass(frozen=True)
class ProvenRanks:
    """Bounds of a separation rank.

    almost_surely_at_least: holds for all cores but a set of measure zero, with templates that span.
    at_most: holds for all cores and templates.
    """

    almost_surely_at_least: int
    at_most: int


def plain_train_ranks(modes: Sequence[int], rank: Rank, left: Left = None) -> ProvenRanks:
    """The proven bounds for a plain train with boundary ranks 1.

    modes: (n_1, .., n_N), the sizes of the positions; with fewer templates than that, their number.
    rank: one inner rank or the list of N - 1 inner ranks.
    left: the positions on one side, see `separation_rank`.

    Both bounds are equal for a split at one bond. For odd and even positions of modes n and ranks r they are
    if r = 1 or r >= n.

    Raises ShapeError for other modes or ranks, ExpressivityError for another partition.

    >>> plain_train_ranks((4, 4, 4, 4), 3), plain_train_ranks((4, 4, 4, 4), 3, "odd_even").at_most
    (ProvenRanks(almost_surely_at_least=3, at_most=3), 12)
    """
    modes = check_tensor_shape(modes)
    ranks = check_ranks(rank, len(modes))
    rows = left_side(left, len(modes))
    on_left = [k in rows for k in range(len(modes))]
    at_most = _minimum_cut(modes, ranks, on_left)
    one_bond = sum(a != b for a, b in zip(on_left, on_left[1:], strict=False)) == 1
    return ProvenRanks(at_most if one_bond else _paired(modes, ranks, on_left), at_most)


def _minimum_cut(modes: Sequence[int], ranks: Sequence[int], on_left: list[bool]) -> int:
    """The smallest product of what separates the left from the right positions: modes, and bonds between cores."""
    best = {side: modes[0] if side != on_left[0] else 1 for side in (True, False)}
    for k in range(1, len(modes)):
        reached = {side: min(best[side], best[not side] * ranks[k]) for side in best}
        best = {side: cut * (modes[k] if side != on_left[k] else 1) for side, cut in reached.items()}
    return min(best.values())


def _paired(modes: Sequence[int], ranks: Sequence[int], on_left: list[bool]) -> int:
    """The largest rank of a train that is a product of identity matrices, each between two neighbours."""
    before, best = 1, 1
    for k in range(1, len(modes)):
        pair = before * min(modes[k - 1], modes[k], ranks[k]) if on_left[k - 1] != on_left[k] else 1
        before, best = best, max(best, pair)
    return best
