"""Low-rank adapters (Mahabadi et al. 2021, https://arxiv.org/abs/2106.04647): a bottleneck with factorised matrices.

W: (in, out) is left @ right with left: (in, r) and right: (r, out): r (in + out) parameters instead of in * out.
"""

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.adapter_modeling import Adapter
from adapters.inits import MATRIX_INITS
from adapters.parts import SharedParts


class LowRankLinear(nn.Module):
    """y = x left right + b; x: (.., in_features), y: (.., out_features); the bias starts at zero."""

    def __init__(self, config: AdapterConfig, in_features: int, out_features: int):
        super().__init__()
        rank, init = config.low_rank_rank, MATRIX_INITS[config.low_rank_w_init]
        self.left = nn.Parameter(init(torch.empty(in_features, rank)))
        self.right = nn.Parameter(init(torch.empty(rank, out_features)))
        self.bias = nn.Parameter(torch.zeros(out_features)) if config.use_bias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x @ self.left.to(x.dtype) @ self.right.to(x.dtype)
        return y if self.bias is None else (y + self.bias).to(x.dtype)


class LowRankAdapter(Adapter):
    """up(activation(down(y))) where both matrices have rank low_rank_rank."""

    @staticmethod
    def _linear(
        config: AdapterConfig, in_features: int, out_features: int, shared: SharedParts, role: str
    ) -> nn.Module:
        return LowRankLinear(config, in_features, out_features)
