"""(IA)^3 (Liu et al. 2022, https://arxiv.org/abs/2205.05638): trained vectors scale what a frozen linear layer gives
or takes.

Keys and values: y = l * x W0^T, l: (out_features,); the feed-forward's output layer: y = (l * x) W0^T, l:
(in_features,). l starts as ones: the adapted model starts exactly as the backbone. It becomes part of the weight, W0
with its rows or columns scaled. The layers are fixed: k, v and wo; lora_targets is not read.
"""

import torch
from torch import nn
from torch.nn import functional

from adapters.adapter_configuration import AdapterConfig
from adapters.merged_weight import Branch
from adapters.parts import Place, SharedParts


class IA3Branch(Branch):
    """l on the output of k and v, on the input of wo."""

    targets = ("k", "v", "wo")

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__()
        self.on_input = place.target.rpartition(".")[2] == "wo"
        self.scaling = nn.Parameter(torch.ones(linear.in_features if self.on_input else linear.out_features))

    def beside(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        if self.on_input:
            return functional.linear(x * self.scaling, weight, bias)
        y = functional.linear(x, weight) * self.scaling
        return y if bias is None else y + bias

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        scaling = self.scaling.to(weight.dtype)
        return weight * (scaling if self.on_input else scaling.unsqueeze(1))
