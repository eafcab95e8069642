"""Activations, by the names used in configuration files."""

from torch import nn

ACTIVATIONS = {
    "gelu": nn.GELU,
    "hard_tanh": nn.Hardtanh,
    "identity": nn.Identity,
    "leaky_relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def activation(name: str | nn.Module) -> nn.Module:
    """The activation with this name; a module is returned as is. Raises ValueError for an unknown name."""
    if isinstance(name, nn.Module):
        return name
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; allowed: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()
