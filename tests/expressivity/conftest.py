import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace
from expressivity.networks import DeepNetwork


@pytest.fixture
def double():
    """Everything in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def space():
    """space("low_rank", rank=2) -> deep networks of such layers, small and quickly fitted; options by keyword."""

    def make(layer="full", *, width=4, depth=1, name=None, sizes=None, **options):
        own = ("rank", "diagonals", "d", "activation", "bias")
        keywords = {"width": width, "depth": depth, "layer": layer} | {k: options.pop(k) for k in own if k in options}
        defaults = {"lr": 0.02, "epoch": 2, "batch_size": 32, "automatic_measurement_mode": "parameters"}
        parameters = keywords if sizes is None else [{**keywords, **size} for size in sizes]
        return ArchitecturalSpace(width, name or layer, DeepNetwork, parameters, **{**defaults, **options})

    return make


class Linear(nn.Linear):
    """nn.Linear(4, 2) by keywords."""

    def __init__(self, inputs=4, outputs=2):
        super().__init__(inputs, outputs)
