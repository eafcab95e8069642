"""Trained biases where T5 has none: BitFit (Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199), on every linear
layer and every norm, the output layer among them; with use_TTBias each is a tensor train of rank TTBias_rk.

y -> y + b, b: (size,) starting from zero: the adapted model starts exactly as the backbone.
"""

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart, SharedParts
from t3nsor import TTBias


class AddedBias(AdapterPart):
    """b: (size,), a vector or a tensor train."""

    component = "biases"

    def __init__(self, config: AdapterConfig, size: int, shared: SharedParts):
        super().__init__()
        if config.use_TTBias:
            self.tt_bias = TTBias(size, rank=config.TTBias_rk)
        else:
            self.bias = nn.Parameter(torch.zeros(size))

    def full(self) -> torch.Tensor:
        """b as a dense vector (size,)."""
        return self.tt_bias.full() if hasattr(self, "tt_bias") else self.bias

    def add_to_output(self, module: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
        """A forward hook of a norm."""
        return output + self.full().to(output.dtype)
