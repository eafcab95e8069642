import pytest
import torch

from expressivity import ArchitecturalSpace
from expressivity.networks import DeepNetwork


@pytest.fixture
def double():
    """Set the default dtype to float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def space():
    """space("low_rank", rank=2) -> a space of small deep networks of such layers that are fitted quickly."""

    def make(layer="full", *, width=4, depth=1, name=None, sizes=None, **options):
        own = ("rank", "diagonals", "d", "activation", "bias")
        keywords = {"width": width, "depth": depth, "layer": layer} | {k: options.pop(k) for k in own if k in options}
        defaults = {"lr": 0.02, "epoch": 2, "batch_size": 32, "automatic_measurement_mode": "parameters"}
        lr = options.get("lr", defaults["lr"])
        defaults["lr_candidates"] = None if lr == "auto" else [lr]  # no search
        parameters = keywords if sizes is None else [{**keywords, **size} for size in sizes]
        return ArchitecturalSpace(width, name or layer, DeepNetwork, parameters, **{**defaults, **options})

    return make


@pytest.fixture
def families(space):
    """Two families and a base, with two sizes each."""
    sizes = [{"depth": 1}, {"depth": 2}]
    return (
        space("low_rank", rank=1, sizes=sizes),
        space("n_diagonal", diagonals=3, sizes=sizes),
        space("full", sizes=sizes),
    )
