"""Networks fitted together equal those fitted one at a time."""

import copy
import functools
import math

import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace, ArchitectureComparator
from expressivity.fitting import Fitter
from expressivity.looped import fit_one
from expressivity.networks import DeepNetwork, Transformer
from expressivity.networks.deep import LAYERS
from expressivity.recipe import Recipe
from expressivity.scoring import relative_errors, scale_of
from expressivity.stacked import ELEMENTWISE, Stack, fit_stack, why_not_stacked
from expressivity.targets import Source

STEPS = 50
OPTIONS = {
    "full": {},
    "low_rank": {"rank": 2},
    "n_diagonal": {"diagonals": 3},
    "quantized": {"bits": 2},
    "tt": {"rank": 2, "d": 2},
    "tr": {"rank": 2, "d": 2},
}


class Normed(nn.Sequential):
    """Has a buffer that training changes."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))


class Tied(nn.Module):
    """Has one parameter under two names, and a frozen one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.second.bias.requires_grad_(False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


NETWORKS = {
    **{layer: functools.partial(DeepNetwork, 4, 3, layer, **options) for layer, options in OPTIONS.items()},
    "activated cores": functools.partial(
        DeepNetwork, 4, 2, "tt", rank=2, d=2, activation_between_cores="relu", activation="tanh"
    ),
    "transformer": functools.partial(Transformer, 4, 6, heads=2, depth=2, split_activation="gelu"),
    "batch norm": Normed,
    "tied and frozen": Tied,
}


def recipe(**changes):
    keys = {"lr": 0.01, "epoch": 10, "mini_batch_size": 7, "optimizer": torch.optim.Adam, "grad_clamp": 0.1}
    return Recipe(**{**keys, "criterion": nn.MSELoss(), "seed": 3, **changes})


def both_ways(make, how: Recipe, input_size=(4,)):
    """Outputs (networks, rows, 4) of the same networks fitted together, fitted one at a time, and not fitted."""
    torch.manual_seed(0)
    networks = [make() for _ in range(4)]
    x, y = torch.randn(2, 33, *input_size), torch.randn(2, 33, *input_size)  # 5 mini-batches, the last one shorter
    owner = torch.tensor([0, 0, 1, 1])
    assert sum(len(steps) for _, steps in how.epochs(33)) == STEPS
    stack = fit_stack([copy.deepcopy(each) for each in networks], x, y, owner, how)
    before = torch.stack([each.eval()(x[0]) for each in networks])
    alone = [fit_one(each, x[k], y[k], how).eval() for each, k in zip(networks, owner, strict=True)]
    with torch.no_grad():
        return stack(x[[0, 0, 0, 0]]), torch.stack([each(x[0]) for each in alone]), before


def close(together, alone):
    return (together - alone).norm() / alone.norm() < 1e-6


def test_every_layer_is_tested():
    assert OPTIONS.keys() == LAYERS.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_stacked_fits_are_the_looped_ones(name, double):
    together, alone, before = both_ways(NETWORKS[name], recipe(), (3, 4) if name == "transformer" else (4,))
    assert close(together, alone)
    assert not close(before, alone)


@pytest.mark.parametrize("optimizer", sorted(ELEMENTWISE, key=lambda cls: cls.__name__))
def test_with_every_optimizer_that_is_stacked(optimizer, double):
    together, alone, before = both_ways(NETWORKS["full"], recipe(optimizer=optimizer))
    assert close(together, alone)
    assert not torch.allclose(before, alone)


@pytest.mark.parametrize("clamp", [None, 0.001])
def test_with_options_of_the_optimizer_and_with_a_clamp(clamp, double):
    momentum = functools.partial(torch.optim.SGD, momentum=0.9, weight_decay=0.1, nesterov=True)
    together, alone, _ = both_ways(NETWORKS["full"], recipe(optimizer=momentum, grad_clamp=clamp))
    assert close(together, alone)


def test_the_clamp_cuts_each_entry(double):
    x, y = torch.ones(1, 1), torch.full((1, 1), 1e6)
    network = nn.Linear(1, 1, bias=False)
    before = network.weight.item()
    fit_one(network, x, y, recipe(optimizer=torch.optim.SGD, lr=1.0, epoch=1, grad_clamp=0.25))
    assert network.weight.item() == pytest.approx(before + 0.25)


def test_every_row_is_seen_once_an_epoch_and_the_rate_falls_to_zero():
    how = recipe(epoch=3)
    epochs = list(how.epochs(33))
    for order, steps in epochs:
        seen = torch.cat([order[part] for _, part in steps])
        assert sorted(seen.tolist()) == list(range(33))
        assert [len(order[part]) for _, part in steps] == [7, 7, 7, 7, 5]
    parts = [decay for _, steps in epochs for decay, _ in steps]
    assert parts[0] == 1
    assert parts == sorted(parts, reverse=True)
    assert 0 < parts[-1] < 0.015
    assert epochs[0][0].tolist() != epochs[1][0].tolist()


def test_a_smaller_budget_makes_fewer_steps_of_the_same_rows_and_decays_over_these():
    whole, half, least = (list(recipe(epoch=3, budget=part).epochs(33)) for part in (1.0, 0.5, 0.001))
    assert [len(steps) for _, steps in half] == [5, 2]  # 7 of 15
    assert [len(steps) for _, steps in least] == [1]
    assert all(torch.equal(one, other) for (one, _), (other, _) in zip(whole, half, strict=False))
    parts = [decay for _, steps in half for decay, _ in steps]
    assert parts == pytest.approx([(1 + math.cos(math.pi * step / 7)) / 2 for step in range(7)])


class Branching(nn.Linear):
    """Its control flow depends on values."""

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Secret(nn.Module):
    """Each instance has its own random matrix that is neither a parameter nor a buffer."""

    def __init__(self):
        super().__init__()
        self.linear, self.mixing = nn.Linear(4, 4), [torch.randn(4, 4)]

    def forward(self, x):
        return self.linear(x) @ self.mixing[0]


class OwnAdam(torch.optim.Adam):
    """A subclass, which might do anything."""


class Padded(nn.Module):
    """Its gradient is not that of its output: the row of padding_idx gets none."""

    def __init__(self):
        super().__init__()
        self.table, self.linear = nn.Embedding(3, 4, padding_idx=0), nn.Linear(4, 4)
        nn.init.normal_(self.table.weight)

    def forward(self, x):
        return self.linear(self.table((x[:, 0] > 0).long())) + x


class Mixed(nn.Module):
    """One of its layers is in half precision."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.bfloat16)

    def forward(self, x):
        return self.second(self.first(x).bfloat16()).float()


OBSTACLES = [
    (Padded, torch.optim.Adam, "whose state is not all in parameters and buffers|vmap failed"),
    (Mixed, torch.optim.Adam, "different dtypes: torch.bfloat16, torch.float32"),
    (Branching, torch.optim.Adam, "vmap failed: RuntimeError"),
    (Secret, torch.optim.Adam, "whose state is not all in parameters and buffers"),
    (None, torch.optim.LBFGS, "the optimizer LBFGS is not known to work elementwise"),
    (None, OwnAdam, "the optimizer OwnAdam is not known"),
    (None, functools.partial(OwnAdam, amsgrad=True), "the optimizer OwnAdam is not known"),
]


@pytest.mark.parametrize(("network", "optimizer", "reason"), OBSTACLES)
def test_what_cannot_be_stacked_is_noticed_said_and_fitted_one_by_one(network, optimizer, reason):
    parameters = {"in_features": 4, "out_features": 4} if network in (None, Branching) else {}
    shared = {"batch_size": 32, "epoch": 2, "automatic_measurement_mode": "parameters"}
    odd = ArchitecturalSpace(4, "odd", network or nn.Linear, parameters, optimizer=optimizer, **shared)
    plain = ArchitecturalSpace(4, "plain", nn.Linear, {"in_features": 4, "out_features": 4}, **shared)
    with pytest.warns(UserWarning, match=f"space 'odd', size 0: networks are fitted one at a time: .*{reason}"):
        result = ArchitectureComparator(odd, plain, plain).compare(2, 2, progress=False)
    (size,) = result.sizes
    assert size.fresh["A"].shape == (2, 2)
    assert size.fresh["A"].isfinite().all()


def test_a_first_parameter_of_whole_numbers_does_not_round_the_targets():
    class Ordered(nn.Module):
        def __init__(self):
            super().__init__()
            self.ids = nn.Parameter(torch.arange(4), requires_grad=False)
            self.linear = nn.Linear(4, 4)

        def forward(self, x):
            return self.linear(x[:, self.ids])

    space = ArchitecturalSpace(4, "ordered", Ordered, batch_size=256, epoch=60, lr=0.05, lr_candidates=[0.05])
    result = ArchitectureComparator(space, space, space).compare(2, 1, progress=False)
    assert result.sizes[0].fresh["A"].max() < 1e-3


def test_lbfgs_gets_its_closure(double):
    linear = {"in_features": 4, "out_features": 4}
    keywords = {"batch_size": 64, "mini_batch_size": 64, "epoch": 20, "lr": 1.0, "lr_candidates": [1.0]}
    keywords["grad_clamp"] = None
    space = ArchitecturalSpace(4, "linear", nn.Linear, linear, optimizer=torch.optim.LBFGS, **keywords)
    with pytest.warns(UserWarning, match="LBFGS"):
        result = ArchitectureComparator(space, space, space).compare(2, 1, progress=False)
    assert result.sizes[0].fresh["A"].max() < 1e-6


def fitter(space, **changes):
    keys = {"restarts": 3, "criterion": nn.MSELoss(), "seed": 1, "device": torch.device("cpu"), "lr": 0.02}
    return Fitter(space, 0, **{**keys, **changes})


def source(space, rows=64):
    return Source(space, 0, torch.distributions.Normal(0, 1), space.rows(0), rows, 1, torch.device("cpu"))


def test_the_size_of_the_stacks_does_not_matter(space, double):
    low_rank, full = space("low_rank", rank=2, depth=2), space(depth=2)
    targets = source(full).draw(range(4))
    found = [fitter(low_rank, stack_size=size).fit(targets, range(4)) for size in (1, 5, 12)]
    for other in found[1:]:
        assert torch.allclose(found[0].fresh, other.fresh, rtol=1e-9)
        assert torch.allclose(found[0].training, other.training, rtol=1e-9)
    assert found[0].fresh.unique().numel() == 12


def test_fast_and_slow_comparisons_find_the_same(space, double):
    comparator = ArchitectureComparator(space("low_rank", rank=2, depth=2), space(depth=2), space(depth=2))
    fast = comparator.compare(3, 2, progress=False)
    slow = comparator.compare(3, 2, fast=False, progress=False)
    for family in "AB":
        assert torch.allclose(fast.sizes[0].fresh[family], slow.sizes[0].fresh[family], rtol=1e-6)


def test_a_target_is_the_same_alone_and_among_others(space):
    low_rank = space("low_rank", rank=2)
    among = source(low_rank).draw(range(5))
    alone = source(low_rank).draw(range(3, 4))
    assert torch.equal(among.x[3], alone.x[0])
    assert torch.equal(among.fresh_y[3], alone.fresh_y[0])
    assert among.x.unique(dim=0).shape[0] == 5
    assert not torch.equal(among.x[0, :32], among.fresh_x[0, :32])


def test_dropout_is_repeated_by_the_seed(space):
    def noisy():
        return nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 4))

    dropped = ArchitecturalSpace(4, "dropout", noisy, batch_size=32, automatic_measurement_mode="parameters")
    targets = source(space()).draw(range(2))
    first, second = (fitter(dropped).fit(targets, range(2)).fresh for _ in range(2))
    assert torch.equal(first, second)
    assert first.unique().numel() == 6


def test_errors_are_relative_to_the_best_constant():
    torch.manual_seed(0)
    x, y = torch.randn(2, 500, 3), torch.randn(2, 500, 5) * torch.arange(1.0, 6) + 7
    owner = torch.tensor([0, 1, 1])

    def model(rows):
        return torch.cat([rows, rows[..., :2]], dim=-1)

    measure = functools.partial(relative_errors, x=x, y=y, owner=owner, criterion=nn.MSELoss(), at_once=16)
    scale = scale_of(y, nn.MSELoss())
    found = measure(model, scale=scale)
    for error, k in zip(found, owner, strict=True):
        naive = (model(x[k]) - y[k]).double().square().mean() / y[k].double().var(0, correction=0).mean()
        assert error.item() == pytest.approx(naive.item(), rel=1e-6)
    constant = measure(lambda rows: y[owner].mean(1, keepdim=True).expand(3, rows.shape[1], 5), scale=scale)
    assert constant.tolist() == pytest.approx([1, 1, 1])


def test_a_stack_holds_what_its_networks_hold():
    torch.manual_seed(0)
    networks = [Tied() for _ in range(3)]
    stack = Stack(networks, torch.device("cpu"))
    assert {name: part.shape for name, (part,) in stack.trained.items()} == {
        "first.weight": (3, 4, 4),
        "first.bias": (3, 4),
    }
    assert stack.tensors().keys() == {"first.weight", "first.bias", "second.bias"}
    assert torch.equal(stack.tensors()["first.weight"][1], networks[1].first.weight)
    assert why_not_stacked(networks[:2], torch.randn(8, 4), torch.randn(8, 4), recipe()) is None


def test_large_activations_make_small_stacks(space, monkeypatch):
    wide = ArchitecturalSpace(4, "wide", lambda: nn.Sequential(nn.Linear(4, 1000), nn.Tanh(), nn.Linear(1000, 4)))
    targets = source(space()).draw(range(1))
    found = fitter(wide)
    found.probe(targets)
    outputs, weights, data = 16 * 1000, 9004, (32 + 64) * (4 + 4)
    least = 4 * outputs + 16 * weights + 8 * data
    assert least <= found.bytes_each < 2 * least
    monkeypatch.setattr("expressivity.devices.ON_A_CPU", (2048, 10 * found.bytes_each))
    assert found.at_once == 10
    assert fitter(wide, stack_size=3).at_once == 3
    monkeypatch.undo()
    assert fitter(space()).at_once == 2048
