"""Initialisers of matrices, by the names used in configuration files."""

from collections.abc import Callable

import torch
from torch import nn

MatrixInit = Callable[[torch.Tensor], torch.Tensor]

MATRIX_INITS: dict[str, MatrixInit] = {
    "glorot-uniform": nn.init.xavier_uniform_,
    "glorot-normal": nn.init.xavier_normal_,
    "normal": lambda tensor: nn.init.normal_(tensor, std=0.01),
}
