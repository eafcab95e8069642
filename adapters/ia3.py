"""(IA)^3 (Liu et al. 2022, https://arxiv.org/abs/2205.05638): trained vectors scale the outputs or inputs of
frozen linear layers.

Key and value projections (k, v): y = l * x W0^T, l: (out_features,). Output layer of the feed-forward (wo):
y = (l * x) W0^T, l: (in_features,). l starts as ones, so the adapted model initially equals the backbone. Merging
scales the rows or columns of W0. The layers are fixed, so lora_targets is not used.
"""

import torch
from torch import nn
from torch.nn import functional

from adapters.adapter_configuration import AdapterConfig
from adapters.merged_weight import Branch
from adapters.parts import Place, SharedParts


class IA3Branch(Branch):
    """l * x W0^T on k and v, (l * x) W0^T on wo."""

    targets = ("k", "v", "wo")

    def __init__(self, config: AdapterConfig, linear: nn.Linear, place: Place, shared: SharedParts):
        super().__init__()
        self.scales_input = place.target.rpartition(".")[2] == "wo"
        self.scaling = nn.Parameter(torch.ones(linear.in_features if self.scales_input else linear.out_features))

    def layer_output(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        scaling = self.scaling.to(weight.dtype)
        if self.scales_input:
            return functional.linear(x * scaling, weight, bias)
        y = functional.linear(x, weight) * scaling
        return y if bias is None else y + bias

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        scaling = self.scaling.to(weight.dtype)
        return weight * (scaling if self.scales_input else scaling.unsqueeze(1))
