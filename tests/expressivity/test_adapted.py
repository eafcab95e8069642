"""Frozen networks with a trained update."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace, ExpressivityError
from expressivity.fitting import Fitter
from expressivity.frozen_base import share_frozen
from expressivity.looped import fit_one
from expressivity.networks import ARCHITECTURES, AdaptedNetwork, DeepNetwork
from expressivity.networks.deep import LAYERS
from expressivity.randomness import seeded
from expressivity.recipe import Recipe
from expressivity.sizes import trainable_parameters
from expressivity.stacked import why_not_stacked

RECIPE = Recipe(0.01, 2, 8, torch.optim.Adam, None, nn.MSELoss(), 0)
# update, options, trained parameters at width 16 and depth 2
UPDATES = {
    "full": ("full", {}, 2 * 16 * 16),
    "low rank": ("low_rank", {"rank": 3}, 2 * 2 * 16 * 3),
    "diagonals": ("n_diagonal", {"diagonals": 3}, 2 * (16 + 15 + 15)),
    "train": ("tt", {"rank": 3, "d": 2}, 2 * 2 * 16 * 3),
    "train of 4 cores": ("tt", {"rank": [2, 3, 2], "d": 4}, 2 * 4 * (2 + 6 + 6 + 2)),
    "activated train": ("tt", {"rank": 3, "d": 2, "activation_between_cores": "relu"}, 2 * 2 * 16 * 3),
    "ring": ("tr", {"rank": 2, "d": 4}, 2 * 4 * 4 * 4),
    "activated ring": ("tr", {"rank": 2, "d": 4, "activation_between_cores": "tanh"}, 2 * 4 * 4 * 4),
    "cross-layer": ("tt_cross_layer", {"rank": 3, "d": 2}, 2 * 16 * 3 + 2 * 9),
    "cross-layer of 4 cores": ("tt_cross_layer", {"rank": [2, 3, 2], "d": 4}, 4 * (2 + 6 + 6 + 2) + 2 * 4),
}
EACH = pytest.mark.parametrize("name", UPDATES)


def adapted(name, width=16, depth=2, seed=0, **more):
    update, options, _ = UPDATES[name]
    with seeded(seed):
        return AdaptedNetwork(width, depth, update, **options, **more)


def data(rows=64, width=16):
    with seeded("data"):
        return torch.randn(rows, width), torch.randn(rows, width)


def changes(network):
    """x D_l for a unit matrix x, one of each layer: the matrix D_l if the update is linear."""
    with torch.no_grad():
        return [network.updates(torch.eye(16), number) for number in range(len(network.frozen.layers))]


def test_every_layer_is_tested():
    assert {update for update, *_ in UPDATES.values()} == {*LAYERS, "tt_cross_layer"} - {"quantized"}
    assert ARCHITECTURES["adapted_network"] is AdaptedNetwork


@EACH
@pytest.mark.parametrize("more", [{}, {"bias": False, "activation": "tanh"}, {"train_bias": True}])
def test_at_the_start_it_is_the_frozen_network(name, more):
    """And equal seeds give the same frozen network whatever the update: it is the DeepNetwork of the same seed."""
    network, (x, _) = adapted(name, depth=3, **more), data()
    with seeded(0):
        plain = DeepNetwork(16, 3, **{key: value for key, value in more.items() if key != "train_bias"})
    assert torch.equal(network(x), plain(x))
    assert network.frozen.state_dict().keys() == plain.state_dict().keys()
    assert all(map(torch.equal, network.frozen.parameters(), plain.parameters()))
    assert not torch.equal(adapted(name, depth=3, seed=1, **more)(x), plain(x))


@EACH
def test_number_of_trained_parameters(name):
    assert trainable_parameters(adapted(name)) == UPDATES[name][2]
    assert trainable_parameters(adapted(name, train_bias=True)) == UPDATES[name][2] + 2 * 16


@EACH
def test_training_reaches_every_trained_tensor_and_no_other(name):
    network, (x, y) = adapted(name, depth=3, train_bias=True), data()
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    fit_one(network, x, y, RECIPE)
    moved = {key for key, tensor in network.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved == {key for key, parameter in network.named_parameters() if parameter.requires_grad}
    assert not any(key.startswith("frozen.") for key in moved)
    for key in moved:
        assert (network.state_dict()[key] != before[key]).double().mean() > 0.9, key  # all entries but for dead ReLUs


@EACH
def test_only_the_last_factor_is_zero(name):
    zero = {key for key, parameter in adapted(name).updates.named_parameters() if not parameter.any()}
    last = {"full": "weight", "low rank": "V", "diagonals": "values", "cross-layer": "matrix.cores.1"}
    if name.startswith("cross-layer"):
        assert zero == {last.get(name, "matrix.cores.3")}
    else:
        d = UPDATES[name][1].get("d", 0)
        assert zero == {f"layers.{number}.{last.get(name, f'layer.weight.cores.{d - 1}')}" for number in (0, 1)}


@EACH
def test_networks_of_every_update_can_be_stacked(name):
    networks, (x, y) = [adapted(name, seed=seed, train_bias=True) for seed in (0, 1)], data(16)
    for network in networks:  # at the start most gradients are zero
        network.draw_update()
    assert why_not_stacked(networks, x, y, replace(RECIPE, epoch=1)) is None


@EACH
def test_a_drawn_update_is_not_zero(name):
    network, (x, _) = adapted(name), data()
    before = network(x)
    network.draw_update()
    assert all(change.any() for change in changes(network))
    assert (network(x) - before).norm() > 0.3 * before.norm()


@pytest.mark.parametrize("name", [name for name in UPDATES if not name.startswith("activated")])
def test_a_drawn_update_has_the_variance_of_a_difference_of_weights(name):
    network, squares = adapted(name), []
    with seeded("updates", 1):
        for _ in range(500):
            network.draw_update()
            squares.append(torch.stack([change.square().mean() for change in changes(network)]))
    squares = torch.stack(squares).double()
    error = squares.std(0) / math.sqrt(len(squares))
    wanted = torch.tensor([2 * 2 / 16, 2 * 1 / 16])
    assert (error < 0.08 * wanted).all()
    assert ((squares.mean(0) - wanted).abs() < 4 * error).all()


def test_updates_drawn_across_layers_are_uncorrelated_and_of_equal_variance_in_all_entries():
    network = adapted("cross-layer")
    drawn = []
    with seeded("updates"):
        for _ in range(2000):
            network.draw_update()
            drawn.append(torch.stack(changes(network)))
    first, second = torch.stack(drawn).unbind(1)
    scale = first.std() * second.std()
    assert first.var(0).min() > 0.75 * 4 / 16
    assert first.var(0).max() < 1.35 * 4 / 16
    assert ((first * second).mean(0) / scale).abs().max() < 0.15


def test_a_drawn_bias_has_the_variance_of_a_difference_of_biases():
    network = AdaptedNetwork(400, 2, "n_diagonal", diagonals=1, train_bias=True)
    network.draw_update()
    assert network.biases.var().item() == pytest.approx(2 / 3 / 400, rel=0.15)


def test_a_drawn_update_depends_on_the_seed_and_leaves_the_frozen_network():
    network = adapted("train")
    before = [p.clone() for p in network.frozen.parameters()]
    draws = []
    for seed in (0, 0, 1):
        with seeded("target", seed):
            network.draw_update()
        draws.append(torch.stack(changes(network)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert all(map(torch.equal, network.frozen.parameters(), before))


def test_the_cross_layer_train_is_the_product_of_its_cores():
    network = adapted("cross-layer of 4 cores", depth=3)
    network.draw_update()
    layer, (a, b, c, d) = network.updates.layer, network.updates.matrix.cores
    full = torch.einsum("aijb,bxc,ckld,dmne,eopf->xikmojlnp", a, layer, b, c, d).reshape(3, 16, 16)
    torch.testing.assert_close(torch.stack(changes(network)), full.detach())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"update": "lora"}, "unknown update 'lora'; allowed: full, low_rank, n_diagonal, tt, tr, tt_cross_layer"),
        ({"depth": 0}, "depth is 0"),
        ({"activation": "rule"}, "unknown activation 'rule'"),
        ({"update": "tt_cross_layer", "d": 1}, "d is 1; for tt_cross_layer it must be at least 2"),
    ],
)
def test_refusals(given, said):
    with pytest.raises(ValueError, match=said):
        AdaptedNetwork(**{"width": 16, "depth": 2, "rank": 2, **given})


def family(name, **more):
    update, options, _ = UPDATES[name]
    return ArchitecturalSpace(16, name, AdaptedNetwork, {"width": 16, "depth": 2, "update": update, **options}, **more)


def test_one_frozen_base_for_families_and_restarts():
    """And each restart keeps the start of its own update."""
    shared, x = {}, data()[0]
    for name in ("low rank", "ring", "cross-layer of 4 cores"):
        sharing, apart = (
            Fitter(family(name, frozen_base=shares), 0, 2, nn.MSELoss(), 0, torch.device("cpu"), 0.01)
            for shares in (True, False)
        )
        for number in (0, 1):
            for restart in (0, 1):
                network, start = sharing.network(number, restart), apart.network(number, restart)
                assert all(map(torch.equal, network.updates.parameters(), start.updates.parameters()))
                assert not torch.equal(network(x), start(x))
                shared.setdefault(number, []).append(network(x))
    for outputs in shared.values():
        assert len(outputs) == 6
        assert all(torch.equal(outputs[0], each) for each in outputs)
    assert not torch.equal(shared[0][0], shared[1][0])


def test_sharing_replaces_frozen_buffers_but_no_table_of_indices():
    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("projection", torch.randn(4, 4))
            self.register_buffer("place", torch.randperm(1000))
            self.fixed, self.scale = nn.Parameter(torch.randn(4), False), nn.Parameter(torch.randn(4))

    space = ArchitecturalSpace(4, "projected", Projected)
    one, other = Projected(), Projected()
    own = {key: tensor.clone() for key, tensor in one.state_dict().items()}
    for network in (one, other):
        share_frozen(space, 0, network, "key")
    for key, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key]) == (key in ("projection", "fixed"))
        assert torch.equal(tensor, own[key]) == (key in ("place", "scale"))


def test_nothing_frozen_is_an_error(space):
    full = space("full", name="all free")
    with pytest.raises(ExpressivityError, match="space 'all free', size 0: frozen_base is true, but all parameters"):
        share_frozen(full, 0, full.build(0), 0)
