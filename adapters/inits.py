"""Initialisers of matrices by the names that configuration files use."""

from torch import nn

INITS = {
    "glorot-uniform": nn.init.xavier_uniform_,
    "glorot-normal": nn.init.xavier_normal_,
    "normal": lambda tensor: nn.init.normal_(tensor, std=0.01),
}
