"""One TT-matrix for many matrices of equal sizes, with the layer and the type of matrix as two more modes.

As in MetaTT (Lopez-Piqueres et al. 2025, https://arxiv.org/abs/2506.09105), L and T stand between the first core of a
TT-matrix and the second:

    W[l, t] = G_1 (L_l T_t) G_2 .. G_d,    L: (r, layers, r), T: (r, types, r), G_k: (r_{k-1}, n_k, m_k, r_k)
"""

from collections.abc import Sequence

import torch

from t3nsor.autocast import without_autocast


def near_identity(rank: int, count: int) -> torch.Tensor:
    """Return a new L or T, (rank, count, rank): all slices almost the identity, so that they learn to differ."""
    eye = torch.eye(rank).unsqueeze(1)
    return eye.repeat(1, count, 1) + 0.1 * torch.randn(rank, count, rank)


def selected_cores(
    cores: Sequence[torch.Tensor], layers: torch.Tensor, types: torch.Tensor, layer: int, kind: int
) -> list[torch.Tensor]:
    """Return the cores of W[layer, kind].

    cores: G_1 .. G_d.
    layers, types: L and T, of the same dtype.
    """
    first, *rest = cores
    with without_autocast(first.device):  # autocast would round the first core but not the others
        return [first @ (layers[:, layer] @ types[:, kind]), *rest]
