"""Deep networks whose layers all have the same width."""

import math

import torch
from torch import nn

from expressivity.networks.activations import activation as named
from expressivity.networks.layers import (
    FullLinear,
    LowRankLinear,
    NDiagonalLinear,
    QuantizedLinear,
    TensorRingLinear,
    TensorTrainLinear,
)

LAYERS = {
    "full": FullLinear,
    "low_rank": LowRankLinear,
    "n_diagonal": NDiagonalLinear,
    "quantized": QuantizedLinear,
    "tt": TensorTrainLinear,
    "tr": TensorRingLinear,
}


def gains(depth: int) -> list[float]:
    """Gains of the layers: sqrt(2) before an activation (He et al. 2015, https://arxiv.org/abs/1502.01852), else 1."""
    return [math.sqrt(2)] * (depth - 1) + [1.0]


class DeepNetwork(nn.Module):
    """Linear layers of one structure, with an activation after each but the last.

    width: width of all layers.
    depth: number of linear layers.
    layer: structure of the layers, a key of LAYERS, or a class with the same arguments.
    activation: name of the activation, or a module.
    bias: whether the layers have biases.
    options: keywords of the layer, such as rank or diagonals.

    The layers are initialised with these `gains`.

    Raises ValueError for an unknown layer or activation, or an invalid depth.
    """

    def __init__(
        self, width: int, depth: int, layer: str = "full", activation: str = "relu", bias: bool = True, **options
    ):
        super().__init__()
        if isinstance(layer, str) and layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}; allowed: {', '.join(LAYERS)}")
        make = LAYERS[layer] if isinstance(layer, str) else layer
        if depth < 1:
            raise ValueError(f"depth is {depth}; it must be at least 1")
        self.layers = nn.ModuleList(make(width, gain, bias=bias, **options) for gain in gains(depth))
        self.activations = nn.ModuleList(named(activation) for _ in range(depth - 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., width) -> (.., width)."""
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activation(layer(x))
        return self.layers[-1](x)


class GaussianNetwork(nn.Sequential):
    """A random network as in mean-field theory: weights ~ N(0, sigma_w^2 / width), biases ~ N(0, sigma_b^2).

    The layers are named linear1, activation1, linear2, .. Poole et al. 2016, https://arxiv.org/abs/1606.05340.
    """

    def __init__(self, width: int, depth: int, sigma_w: float, sigma_b: float = 0.0, activation: str = "hard_tanh"):
        super().__init__()
        for number in range(1, depth + 1):
            linear = nn.utils.skip_init(nn.Linear, width, width)
            nn.init.normal_(linear.weight, std=sigma_w / math.sqrt(width))
            nn.init.normal_(linear.bias, std=sigma_b) if sigma_b else nn.init.zeros_(linear.bias)
            self.add_module(f"linear{number}", linear)
            self.add_module(f"activation{number}", named(activation))
