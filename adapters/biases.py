"""BitFit (Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199): trained biases where T5 has none.

y -> y + b on every linear layer, the output layer included, and on every norm. b: (size,) starts at zero, so the
adapted model initially equals the backbone. With use_TTBias each b is a tensor train of rank TTBias_rk.
"""

from typing import Any

import torch
from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart, SharedParts
from adapters.tensor_train_linear import bias_of


class AddedBias(AdapterPart):
    """b: (size,), a vector or a tensor train."""

    component = "biases"

    def __init__(self, config: AdapterConfig, size: int, shared: SharedParts):
        super().__init__()
        if config.use_TTBias:
            self.tt_bias = bias_of(config, size)
        else:
            self.bias = nn.Parameter(torch.zeros(size))

    def full(self) -> torch.Tensor:
        """b as a dense vector (size,)."""
        return self.tt_bias.full() if hasattr(self, "tt_bias") else self.bias

    def add_to_output(self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        """Add b to the output of a norm; a forward hook."""
        return output + self.full().to(output.dtype)
