"""Trajectory length, sign transitions and mean-field predictions, against theory and a slow reference."""

import math

import pytest
import torch
from torch import nn

from expressivity import ExpressivityError, mean_field
from expressivity.networks import DeepNetwork, Transformer
from expressivity.networks.deep import GaussianNetwork
from expressivity.trajectory import circle, mean_growth, trajectory

WIDTH, POINTS, SEEDS = 256, 16_000, 6
# Fewer points cut the corners of a folded curve: these lose less than 1.5% of a layer's growth. The growth of one ReLU
# network scatters by 1.6%, so that the mean of 12 is known to 0.5%; that of one hard-tanh network by 0.8%.
ENOUGH = {("relu", 1): 1000, ("relu", 2): 1000, ("relu", 4): 1000, ("relu", 16): 1000}
ENOUGH |= {("hard_tanh", 1): 2000, ("hard_tanh", 2): 2000, ("hard_tanh", 4): 2000, ("hard_tanh", 16): 8000}
LAYERS = [f"activation{number}" for number in range(1, 7)]
PHI = {"relu": torch.relu, "hard_tanh": nn.functional.hardtanh}


def measured(activation, variance, seed, points):
    torch.manual_seed(seed)
    network = GaussianNetwork(WIDTH, 6, math.sqrt(variance), activation=activation)
    return trajectory(network, circle(points, WIDTH, seed=seed), LAYERS)


def growth(activation, variance, seeds):
    points = ENOUGH[activation, variance]
    return sum(mean_growth(measured(activation, variance, seed, points), 2, 6) for seed in range(seeds)) / seeds


def test_relu_curves_grow_by_sigma_over_root_two():
    assert growth("relu", 2, seeds=12) == pytest.approx(1, rel=0.02)
    (base,) = {growth("relu", 2, seeds=1)}
    for variance in (1, 4, 16):  # the network is homogeneous: growth is proportional to sigma_w
        assert growth("relu", variance, seeds=1) == pytest.approx(base * math.sqrt(variance / 2), rel=1e-4)


def test_hard_tanh_curves_grow_by_root_chi_and_cross_zero_in_proportion():
    found = {
        variance: [measured("hard_tanh", variance, seed, ENOUGH["hard_tanh", variance]) for seed in range(SEEDS)]
        for variance in (2, 4, 16)
    }
    growths = {v: sum(mean_growth(layers, 2, 6) for layers in runs) / SEEDS for v, runs in found.items()}
    for variance, factor in growths.items():
        sigma = math.sqrt(variance)
        q = mean_field.fixed_point(PHI["hard_tanh"], sigma, 0.0)
        assert factor == pytest.approx(math.sqrt(mean_field.chi(PHI["hard_tanh"], sigma, q)), rel=0.03)
        assert factor < sigma
    assert growth("hard_tanh", 1, seeds=4) < growths[2] < growths[4] < growths[16]
    for variance, runs in found.items():
        length, transitions = (
            [sum(getattr(layers[k], what) for layers in runs) for k in range(1, 6)]
            for what in ("length", "transitions")
        )
        ratios = [crossed / long for crossed, long in zip(transitions, length, strict=True)]
        assert max(ratios) / min(ratios) < 1.25, (variance, ratios)


@pytest.mark.parametrize(("activation", "variance"), [("hard_tanh", 16), ("relu", 2)])
def test_the_sampling_is_fine_enough(activation, variance):
    coarse, fine = (measured(activation, variance, 0, points) for points in (POINTS, 2 * POINTS))
    for a, b in zip(fine, coarse, strict=True):
        assert a.length == pytest.approx(b.length, rel=0.005)


def test_against_a_loop_over_the_points():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU())
    curve = torch.randn(9000, 5).cumsum(0) / 50  # more points than are processed at once
    found = trajectory(network, curve, ["1", "3"])
    with torch.no_grad():
        images = [network[:2](curve), network(curve)]
    before = sum((curve[k + 1] - curve[k]).norm().item() for k in range(len(curve) - 1))
    for layer, name, image in zip(found, ["1", "3"], images, strict=True):
        length = sum((image[k + 1] - image[k]).norm().item() for k in range(len(image) - 1))
        signs = [tuple((row > 0).tolist()) for row in image]
        assert layer.name == name
        assert layer.length == pytest.approx(length, rel=1e-4)
        assert layer.growth == pytest.approx(length / before, rel=1e-4)
        assert layer.transitions == sum(
            a != b for s, t in zip(signs, signs[1:], strict=False) for a, b in zip(s, t, strict=True)
        )
        assert layer.patterns == len(set(signs))
        before = length


def test_all_layers_without_parts_are_taken_and_the_mode_is_kept():
    network = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Dropout(0.5), nn.ReLU())).train()
    assert [layer.name for layer in trajectory(network, circle(10, 3))] == ["0", "1.0", "1.1"]
    assert network.training
    assert not network[0]._forward_hooks


def test_a_circle_is_one():
    curve = circle(1000, 9).double()
    assert curve.shape == (1001, 9)
    assert torch.allclose(curve.norm(dim=1), torch.tensor(3.0, dtype=torch.float64))
    assert torch.allclose(curve[0], curve[-1], atol=1e-5)
    assert torch.linalg.matrix_rank(curve, rtol=1e-5) == 2
    length = torch.linalg.vector_norm(curve.diff(dim=0), dim=1).sum().item()
    assert length == pytest.approx(6 * math.pi, rel=1e-4)
    assert circle(8, 4, radius=2.0)[0].norm().item() == pytest.approx(2)


def test_layers_that_work_in_place_change_nothing():
    torch.manual_seed(0)
    linear = nn.Linear(5, 50)
    curve = circle(100, 5)
    before = curve.clone()
    apart, in_place = (nn.Sequential(nn.ReLU(inplace=i), linear, nn.ReLU(inplace=i)) for i in (False, True))
    assert trajectory(apart, curve) == trajectory(in_place, curve)
    assert torch.equal(curve, before)


def test_our_own_networks_have_layers_that_are_called_once():
    for network, curve in ((DeepNetwork(4, 3), circle(10, 4)), (Transformer(4, 4), circle(10, 8).view(11, 2, 4))):
        assert len(trajectory(network, curve)) >= 5


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(self.linear(x))


def test_wrong_curves_and_layers_are_named():
    network = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    for call, message in (
        (
            lambda: trajectory(network, torch.zeros(3)),
            r"curve has shape \(3,\); it must be \(points, \*input_size\) with at least 2 points",
        ),
        (lambda: trajectory(network, circle(4, 3), ["2"]), "the network has no layer '2'; it has 0, 1"),
        (lambda: trajectory(network, circle(4, 5)), r"does not accept points of size \(5,\): RuntimeError"),
        (lambda: trajectory(Twice(), circle(4, 3), ["linear"]), "layer 'linear' is called more than once"),
        (lambda: trajectory(Twice(), circle(4, 3), ["spare"]), "layer 'spare' is never called"),
        (lambda: trajectory(network, circle(4, 3) * math.nan), "layer '0' returned values that are not finite"),
        (lambda: mean_growth(trajectory(network, circle(4, 3)), 2, 6), "first is 2 and last is 6; they must satisfy"),
        (lambda: mean_growth(trajectory(network, torch.zeros(4, 3)), 1, 2), "the curve has length 0"),
        (lambda: circle(10, 1), "points is 10 and width is 1; both must be at least 2"),
    ):
        with pytest.raises(ExpressivityError, match=message):
            call()


# FACTS: sqrt(chi) of hard-tanh; of a ReLU sigma_w / sqrt(2).
CHI = {("hard_tanh", 2): 1.158, ("hard_tanh", 4): 1.345, ("hard_tanh", 16): 1.845}


@pytest.mark.parametrize(("activation", "variance"), CHI)
def test_mean_field_growth_at_the_fixed_point(activation, variance):
    sigma, phi = math.sqrt(variance), PHI[activation]
    q = mean_field.fixed_point(phi, sigma, 0.0)
    assert mean_field.next_variance(phi, sigma, 0.0, q) == pytest.approx(q, rel=1e-6)
    assert math.sqrt(mean_field.chi(phi, sigma, q)) == pytest.approx(CHI[activation, variance], abs=5e-4)
    inside = math.erf(1 / math.sqrt(2 * q))  # chi = sigma_w^2 P(|h| < 1)
    assert mean_field.chi(phi, sigma, q) == pytest.approx(variance * inside, rel=1e-3)


def test_mean_field_of_relu_has_closed_forms():
    for variance, bias in ((1.0, 0.5), (2.0, 0.0), (16.0, 0.0)):
        sigma_w, sigma_b = math.sqrt(variance), math.sqrt(bias)
        found = mean_field.variances(torch.relu, sigma_w, sigma_b, 4)
        wanted = [variance + bias]
        for _ in range(3):
            wanted.append(variance * wanted[-1] / 2 + bias)
        assert found == pytest.approx(wanted, rel=1e-6)
        assert mean_field.growth(torch.relu, sigma_w, sigma_b, 3) == pytest.approx(
            [sigma_w / math.sqrt(2)] * 3, rel=1e-4
        )
    assert mean_field.fixed_point(torch.relu, 1.0, math.sqrt(0.5)) == pytest.approx(1.0, rel=1e-4)
    assert mean_field.fixed_point(torch.relu, 1.0, 0.0) == 0
    assert mean_field.fixed_point(torch.relu, 2.0, 0.0) == math.inf


def test_biases_are_drawn_with_their_variance():
    torch.manual_seed(0)
    network = GaussianNetwork(512, 2, 1.5, 0.5)
    assert network.linear1.weight.std().item() == pytest.approx(1.5 / math.sqrt(512), rel=0.01)
    assert network.linear2.bias.std().item() == pytest.approx(0.5, rel=0.1)
