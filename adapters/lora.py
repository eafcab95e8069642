"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): y = x W0^T + s * x A^T B^T with W0 frozen.

A: (lora_rank, in_features) is initialised like nn.Linear, B: (out_features, lora_rank) with zero, so the adapted model
initially equals the backbone. s = lora_alpha / lora_rank, or 1 if lora_alpha is null. Parameters: lora_rank
(in_features + out_features).
"""

import math

import torch
from torch import nn
from torch.nn import functional

from adapters.adapter_configuration import AdapterConfig
from adapters.merged_weight import Branch
from adapters.parts import Place, SharedParts


class ScaledBranch(Branch):
    """Base class of branches with a scale s and with dropout on x during training.

    rank: s = lora_alpha / rank, or 1 if lora_alpha is null.
    """

    def __init__(self, config: AdapterConfig, rank: int):
        super().__init__()
        self.scale = 1.0 if config.lora_alpha is None else config.lora_alpha / rank
        self.dropout = nn.Dropout(config.lora_dropout)


class LoRABranch(ScaledBranch):
    """s * x A^T B^T."""

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__(config, config.lora_rank)
        self.A = nn.Parameter(torch.empty(config.lora_rank, linear.in_features))
        self.B = nn.Parameter(torch.zeros(linear.out_features, config.lora_rank))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def update(self, x: torch.Tensor) -> torch.Tensor:
        inner = functional.linear(self.dropout(x), self.A.to(x.dtype))
        return functional.linear(inner, self.B.to(x.dtype)) * self.scale

    def layer_output(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y = functional.linear(x, weight, bias)
        inner = functional.linear(self.dropout(x), self.A.to(x.dtype)).reshape(-1, len(self.A))
        # One product that scales and adds: as three steps, they are half of the branch's time.
        return torch.addmm(y.reshape(-1, len(self.B)), inner, self.B.to(x.dtype).t(), alpha=self.scale).view(y.shape)

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        return self.scale * self.B.to(dtype) @ self.A.to(dtype)


class DenseBranch(ScaledBranch):
    """s * x D^T with a full matrix D: (out_features, in_features) that starts at zero; an upper bound, for debugging.

    s = lora_alpha, or 1 if lora_alpha is null: there is no rank to divide by.
    """

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__(config, rank=1)
        self.D = nn.Parameter(torch.zeros_like(linear.weight))

    def update(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(self.dropout(x), self.D.to(x.dtype)) * self.scale

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        return self.scale * self.D.to(dtype)
