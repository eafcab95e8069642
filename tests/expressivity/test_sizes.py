"""The bits and parameters of a network."""

import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace, ExpressivityError
from expressivity.networks import DeepNetwork
from expressivity.networks.layers import FullLinear, QuantizedLinear
from expressivity.sizes import information, trainable_parameters


class Int2(nn.Module):
    """A straight-through layer that says how many bits its weight has."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 5))

    def information_bits(self):
        return 2 * self.weight.numel()


class Stored(nn.Module):
    """Holds its weight as whole numbers in a buffer, and a table that is no weight."""

    def __init__(self):
        super().__init__()
        self.register_buffer("packed_weight", torch.zeros(5, 5, dtype=torch.int8))
        self.register_buffer("table", torch.zeros(100))
        self.register_buffer("weight_mask", torch.ones(5, 5), persistent=False)
        self.scale = nn.Parameter(torch.ones(5))


def test_a_layer_declares_its_bits():
    assert information(Int2()) == 50
    assert information(nn.Sequential(Int2(), nn.Linear(5, 5))) == 50 + 30 * 32
    shared = Int2()
    assert information(nn.Sequential(shared, nn.ReLU(), shared)) == 50
    assert information(QuantizedLinear(5, 1.0, bits=2, bias=False)) == 50
    assert information(DeepNetwork(5, 2, "quantized", bits=3)) == 2 * (3 * 25 + 5 * 32)
    space = ArchitecturalSpace(5, "int2", DeepNetwork, {"width": 5, "depth": 1, "layer": "quantized", "bias": False})
    assert space.measured(0) == 50
    assert space.rows(0) == 25  # rows follow the parameters, whatever the unit


def test_buffers_count_where_they_hold_weights():
    assert information(Stored()) == 25 * 8 + 5 * 32
    assert information(nn.BatchNorm1d(3)) == 6 * 32  # its statistics are no weights
    assert information(nn.utils.spectral_norm(nn.Linear(5, 4))) == 24 * 32  # nor are its singular vectors
    declared, tied = Int2(), nn.Linear(5, 5, bias=False)
    tied.weight = declared.weight
    assert information(nn.Sequential(declared, tied)) == 50


def test_tied_and_frozen_parameters():
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    assert information(nn.Sequential(first, second)) == 9 * 32
    first.weight.requires_grad_(False)
    assert information(nn.Sequential(first, second)) == 0
    assert trainable_parameters(nn.Sequential(nn.Linear(3, 3), first)) == 12


@pytest.mark.parametrize("bits", [2.5, -1, None, True])
def test_wrong_bits_are_named(bits):
    wrong = Int2()
    wrong.information_bits = lambda: bits
    with pytest.raises(ExpressivityError, match=r"information_bits\(\) of Int2 returned .*; it must be a whole number"):
        information(wrong)


def test_quantised_weights_take_their_values_and_pass_gradients():
    torch.manual_seed(0)
    layer = QuantizedLinear(8, 1.0, bits=2, bias=False)
    values = (layer.matrix() / (2 / 8**0.5)).detach().round(decimals=5).unique()
    assert torch.allclose(values, torch.tensor([-1, -1 / 3, 1 / 3, 1]), atol=1e-4)
    x = torch.randn(4, 8)
    full = FullLinear(8, 1.0, bias=False)
    grads = [torch.autograd.grad((x @ each.matrix()).sum(), each.weight)[0] for each in (layer, full)]
    assert torch.allclose(*grads)
    for bits in (0, 9):
        with pytest.raises(ValueError, match="bits is"):
            QuantizedLinear(4, 1.0, bits=bits)
