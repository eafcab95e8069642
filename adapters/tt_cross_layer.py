"""One tensor train for all layers of a model, with the layer and the matrix type as additional modes.

The update of the matrix of type t in layer l is x W[l, t]. W consists of the cores G_1, .., G_d of a TT-matrix, with L
and T inserted between the first and the second, as in MetaTT (Lopez-Piqueres et al. 2025,
https://arxiv.org/abs/2506.09105):

    W[l, t] = G_1 (L_l T_t) G_2 .. G_d,    L: (r, layers, r), T: (r, types, r), G_k: (r_{k-1}, n_k, m_k, r_k)

Matrices with the same two sizes share one set of cores; if the sizes differ (wi and wo), those that map from the larger
to the smaller one use the transpose. Tasks with their own branches have sets of their own. Parameters of a set: those
of the TT-matrix plus r^2 (layers + types). G_d starts at zero.
"""

from functools import partial

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import Place, SharedParts
from adapters.tt_lora import ChainBranch, branch_shape
from common.errors import ConfigError
from t3nsor import ShapeError, zero_delta
from t3nsor.cross_layer import near_identity, selected_cores
from t3nsor.tensor_train import CoreChain


class CrossLayerCores(nn.Module):
    """The shared cores: `matrix` (the G_k, from the smaller to the larger size), `layer` (L) and `kind` (T)."""

    def __init__(self, config: AdapterConfig, small: int, large: int, layers: int, types: int):
        super().__init__()
        try:
            self.matrix = zero_delta(
                branch_shape(config, small, large), config.tt_rank, ring=config.tensor_ring, trainable=True
            )
        except ShapeError as error:
            raise ConfigError(f"tt_shape: {error}") from None
        if self.matrix.d < 2:
            raise ConfigError("tt_d is 1; tt_cross_layer inserts modes between cores: it must be at least 2")
        rank = self.matrix.ranks[1]
        self.layer = nn.Parameter(near_identity(rank, layers))
        self.kind = nn.Parameter(near_identity(rank, types))

    def matrix_of(self, layer: int, kind: int, dtype: torch.dtype) -> CoreChain:
        """The TT-matrix of one layer and matrix type, (small, large), computed in `dtype`."""
        cores = [core.to(dtype) for core in self.matrix.cores]
        return type(self.matrix)(selected_cores(cores, self.layer.to(dtype), self.kind.to(dtype), layer, kind))


class CrossLayerBranch(ChainBranch):
    """s * x W[l, t], or with its transpose in layers that map from the larger to the smaller size."""

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__(config, linear)
        self.layer, self.kind = place.layer, place.targets.index(place.target)
        small, large = sorted((linear.in_features, linear.out_features))
        self.transposed = linear.in_features > linear.out_features
        arguments = config, small, large, place.layers, len(place.targets)
        self.cores = shared.get(("cross layer", place.task, small, large), partial(CrossLayerCores, *arguments))

    def chain(self, dtype: torch.dtype) -> CoreChain:
        chain = self.cores.matrix_of(self.layer, self.kind, dtype)
        return chain.T if self.transposed else chain
