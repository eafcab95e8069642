"""Activations, by the names used in configuration files."""

from collections.abc import Callable
from functools import partial

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "gelu_new": partial(nn.GELU, approximate="tanh"),
    "leaky_relu": nn.LeakyReLU,
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
ACTIVATION_NAMES = ", ".join(ACTIVATIONS)


def get_activation(name: str) -> nn.Module:
    """Return a new activation module. name: a key of ACTIVATIONS."""
    return ACTIVATIONS[name]()
