"""Effective ranks against closed forms and finite differences."""

import math

import pytest
import torch
from torch import nn

from expressivity import ExpressivityError
from expressivity.effective_rank import (
    effective_rank,
    jacobian,
    tangent_kernel_rank,
    tangent_kernel_spectrum,
    update_ranks,
)
from expressivity.networks import DeepNetwork
from expressivity.networks.layers import FullLinear, LowRankLinear, NDiagonalLinear, TensorRingLinear, TensorTrainLinear
from t3nsor import TTLinear


def test_of_known_spectra():
    assert effective_rank(torch.ones(7)) == pytest.approx(7)
    assert effective_rank(torch.tensor([3.0, 0, 0])) == pytest.approx(1)
    assert effective_rank(torch.tensor([0.5, 0.25, 0.25]) * 9) == pytest.approx(2**1.5)
    assert effective_rank(torch.tensor([1.0, 1.0, -1e-9])) == pytest.approx(2)
    for wrong in (torch.zeros(3), torch.tensor([1.0, math.inf]), torch.tensor([1.0, -5.0])):
        with pytest.raises(ExpressivityError, match="finite, nonnegative and not all zero"):
            effective_rank(wrong)


def test_the_jacobian_against_finite_differences(double):
    torch.manual_seed(0)
    network = DeepNetwork(3, 2, activation="tanh")
    network.layers[0].bias.requires_grad_(False)
    x, step = torch.randn(4, 3), 1e-6
    found = jacobian(network, x)
    trained = [p for p in network.parameters() if p.requires_grad]
    columns = []
    with torch.no_grad():
        for parameter in trained:
            for entry in range(parameter.numel()):
                sides = []
                for sign in (1, -1):
                    parameter.view(-1)[entry] += sign * step
                    sides.append(network(x).flatten())
                    parameter.view(-1)[entry] -= sign * step
                columns.append((sides[0] - sides[1]) / (2 * step))
    assert torch.allclose(found, torch.stack(columns, dim=1), atol=1e-8)
    kernel = found @ found.T
    spectrum = tangent_kernel_spectrum(network, x)
    assert torch.allclose(spectrum.sort().values, torch.linalg.eigvalsh(kernel).clamp_min(0), atol=1e-8)
    assert tangent_kernel_rank(network, x) == pytest.approx(effective_rank(spectrum))
    assert 1 < tangent_kernel_rank(network, x) < 12


def test_of_a_linear_layer_the_kernel_is_that_of_the_inputs():
    """J J^T = (x x^T) (x) I: each output has the spectrum of the inputs."""
    x = torch.eye(5)[:3] * 2
    layer = FullLinear(5, 1.0, bias=False)
    assert tangent_kernel_rank(layer, x) == pytest.approx(3 * 5)


@pytest.mark.parametrize(
    ("layer", "directions"),
    [
        (lambda: FullLinear(8, 1.0), 64),
        (lambda: LowRankLinear(8, 1.0, rank=2), 2 * (8 + 8 - 2)),
        (lambda: NDiagonalLinear(8, 1.0, diagonals=3), 8 + 7 + 7),
        (lambda: TensorTrainLinear(8, 1.0, rank=1, d=3), 4 + 4 + 4 - 2),
        (lambda: TensorTrainLinear(16, 1.0, rank=3, d=2), 16 * 3 * 2 - 9),
        (lambda: TensorRingLinear(16, 1.0, rank=2, d=2), 4 * (16 + 16 - 4)),
    ],
)
def test_directions_are_parameters_less_those_that_change_nothing(layer, directions, double):
    """A train has dimension (number of parameters) - sum r_k^2; a ring of two cores is a train of rank r^2."""
    torch.manual_seed(0)
    layer = layer()
    ranks = update_ranks(layer, getattr(layer, "layer", layer).state_dict()["bias"].numel())
    assert ranks.directions == directions
    assert 1 <= ranks.effective_directions <= directions + 1e-6
    assert 1 <= ranks.matrix_rank <= 16


def test_a_full_layer_moves_alike_in_all_directions():
    torch.manual_seed(0)
    ranks = update_ranks(FullLinear(6, 1.0), 6)
    assert ranks.effective_directions == pytest.approx(36)
    assert 3 < ranks.matrix_rank < 6


def test_updates_of_low_rank_at_a_zero_start_have_its_rank():
    """With B = 0, as LoRA is initialised, dW = dB A has the rank of A."""
    torch.manual_seed(0)
    layer = LowRankLinear(12, 1.0, rank=1)
    nn.init.zeros_(layer.V)
    assert update_ranks(layer, 12).matrix_rank == pytest.approx(1)
    assert update_ranks(layer, 12).directions == 12


def test_of_a_layer_of_t3nsor():
    torch.manual_seed(0)
    ranks = update_ranks(TTLinear(8, 27, rank=2, d=3), 8)
    assert ranks.directions == 2 * 3 * 2 + 2 * 2 * 3 * 2 + 2 * 2 * 3 - 4 - 4


def test_what_is_not_linear_has_no_weight():
    with pytest.raises(ExpressivityError, match="DeepNetwork is not linear in its input"):
        update_ranks(DeepNetwork(4, 2), 4)
    hidden = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    nn.init.zeros_(hidden[2].weight)  # linear as initialised, but not once it is trained
    with pytest.raises(ExpressivityError, match="Sequential is not linear"):
        update_ranks(hidden, 4)
    with pytest.raises(ExpressivityError, match="Identity has no trainable parameters"):
        update_ranks(nn.Identity(), 4)
    with pytest.raises(ExpressivityError, match="no trainable parameters"):
        jacobian(nn.Identity(), torch.randn(2, 3))
