"""ArchitecturalSpace: keywords, measures, networks, and errors about wrong ones."""

import functools

import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace, ExpressivityError


class Net(nn.Module):
    """For width 3: 12 trainable parameters in float32, and 3 frozen ones."""

    def __init__(self, width=3, dtype=torch.float32):
        super().__init__()
        self.linear = nn.Linear(width, width, dtype=dtype)
        self.frozen = nn.Parameter(torch.zeros(width), requires_grad=False)

    def forward(self, x):
        return self.linear(x)


class Sealed(nn.Module):
    """Draws parameters in its __init__ and cannot re-initialise them."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return x * self.weight


class OwnLaw(nn.Module):
    """Its __init__ overrides the initialisation of nn.Linear."""

    def __init__(self, std):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        nn.init.normal_(self.linear.weight, std=std)

    def forward(self, x):
        return self.linear(x)


def test_measures_are_bits_or_parameters_of_what_is_trained():
    widths = [{"width": 3}, {"width": 5}, {"width": 3, "dtype": torch.bfloat16}]
    counted = ArchitecturalSpace(3, "net", Net, widths, automatic_measurement_mode="parameters")
    assert [counted.measured(k) for k in range(3)] == [12, 30, 12]
    bits = ArchitecturalSpace(3, "net", Net, widths)
    assert [bits.measured(k) for k in range(3)] == [12 * 32, 30 * 32, 12 * 16]
    by_hand = ArchitecturalSpace(3, "net", Net, widths, measure=[1, 2, 3.5], automatic_measurement_mode=None)
    assert [by_hand.measured(k) for k in range(3)] == [1, 2, 3.5]


@pytest.mark.parametrize("spelling", ["measure", "mesure", "mesurement"])
def test_old_spellings_of_measure(spelling):
    space = ArchitecturalSpace((3,), "net", Net, [{}, {}], **{spelling: [7, 8]})
    assert [space.measured(0), space.measured(1)] == [7, 8]


def test_old_spelling_of_the_mode_and_the_order_of_positions():
    space = ArchitecturalSpace((3,), "net", Net, [{}], 0.5, 3, 64, None, None, "parameters", 8, torch.optim.SGD, 2.0)
    old = ArchitecturalSpace((3,), "net", Net, [{}], automatic_mesurement_mode="parameters")
    assert space.measured(0) == old.measured(0) == 12
    assert (space.lr, space.epoch, space.rows(0), space.mini_batch_size, space.grad_clamp) == (0.5, 3, 64, 8, 2.0)
    assert space.optimizer is torch.optim.SGD


def test_rows_follow_the_measure():
    net = {"automatic_measurement_mode": "parameters"}
    assert ArchitecturalSpace(3, "net", Net, **net).rows(0) == 12
    assert ArchitecturalSpace(3, "net", Net, automatic_batch_size_scale=2.5, **net).rows(0) == 30
    assert ArchitecturalSpace(3, "net", Net, [{}, {}], batch_size=[5, 6], **net).rows(1) == 6


def test_one_dict_is_for_all_sizes_and_measuring_draws_nothing():
    space = ArchitecturalSpace(3, "net", Net, {"width": 3}, lr=[0.1, 0.2])
    assert space.count == 2
    assert ArchitecturalSpace(3, "net", Net).count is None
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    space.measured(0)
    assert torch.rand(1) == first


def test_modules_are_drawn_again_by_their_law():
    given = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
    before = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    space = ArchitecturalSpace(4, "modules", [given, nn.Linear(4, 4)])
    assert space.count == 2
    built = [space.build(0) for _ in range(200)]
    weights = torch.stack([network[0].weight for network in built])
    assert weights.unique().numel() > 0.99 * weights.numel()
    assert weights.var().item() == pytest.approx(1 / 12, rel=0.05)  # uniform on +-1/2
    assert all(torch.equal(before[name], tensor) for name, tensor in given.state_dict().items())


def test_modules_that_cannot_be_drawn_again_say_so():
    with pytest.raises(ExpressivityError, match=r"space 'sealed', size 0: .*Sealed has parameters but no reset_param"):
        ArchitecturalSpace(3, "sealed", [Sealed()]).build(0)
    with pytest.raises(ExpressivityError, match=r"linear.weight has a mean square of .*initialised in another way"):
        ArchitecturalSpace(4, "own law", [OwnLaw(5.0)]).build(0)
    with pytest.raises(ExpressivityError, match="linear.weight has a mean square of 0, "):
        ArchitecturalSpace(4, "zero", [OwnLaw(0.0)]).build(0)


class Whole(nn.Module):
    """Its own reset_parameters overrides that of its submodule."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.normal_(self.linear.weight, std=0.3)

    def forward(self, x):
        return self.linear(x)


def test_a_whole_overrules_its_parts_when_it_is_drawn_again():
    torch.manual_seed(0)
    space = ArchitecturalSpace(4, "whole", [Whole()])
    weights = torch.stack([space.build(0).linear.weight for _ in range(100)])
    assert weights.std().item() == pytest.approx(0.3, rel=0.05)
    assert weights.abs().max() > 0.5  # out of reach for the uniform initialisation of nn.Linear


WRONG = [
    ({"name": 5}, "name must be a string"),
    ({"parameters": [], "name": "mine"}, "parameters is an empty list; it must have one item per size"),
    ({"mini_batch_size": [None, 1]}, "mini_batch_size is None"),
    ({"input_size": 3.5}, "input_size is 3.5"),
    ({"batch_size": 1}, "batch_size is 1; it must be a whole number, at least 2"),
    ({"optimizer": functools.partial(torch.optim.SGD, lr=5)}, "optimizer already sets lr; set lr of the space"),
    ({"automatic_measurement_mode": ["parameters"]}, "automatic_measurement_mode is"),
    ({"architecture": None}, "architecture is None"),
    ({"architecture": []}, r"architecture is \[\]"),
    ({"architecture": "net"}, "architecture is 'net'"),
    (
        {"architecture": [nn.Linear(3, 3)], "parameters": [{"width": 3}]},
        "parameters cannot be set when architecture is a list of modules",
    ),
    ({"parameters": ["width"]}, "parameters must be a dict of keywords"),
    ({"parameters": [{}, {}], "lr": [0.1] * 3}, "lists have different lengths: parameters 2, lr 3"),
    ({"lr": 0}, "lr is 0; it must be a number above 0"),
    ({"lr": float("nan")}, "lr is nan"),
    ({"lr": [None, 0.1]}, "lr is None"),
    ({"lr": "automatic"}, "lr is 'automatic'; it must be a number above 0, or 'auto'"),
    ({"lr_candidates": []}, r"lr_candidates is \[\]; it must be a list of learning rates"),
    ({"lr_candidates": [0.1, 0]}, "lr_candidates is 0; it must be a number above 0"),
    ({"lr": "auto", "train": print}, "lr is 'auto', but train is a routine of its own"),
    ({"train": [print, 3]}, "train is 3; it must be callable"),
    ({"epoch": 1.5}, "epoch is 1.5; it must be a whole number, at least 1"),
    ({"epoch": [2, True]}, "epoch is True"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"mini_batch_size": "16"}, "mini_batch_size is '16'"),
    ({"grad_clamp": -1}, "grad_clamp is -1"),
    ({"batch_size": 8, "automatic_batch_size_scale": 2}, "batch_size and automatic_batch_size_scale are both set"),
    (
        {"automatic_measurement_mode": "bytes"},
        "automatic_measurement_mode is 'bytes'; allowed: information, parameters",
    ),
    ({"automatic_measurement_mode": None}, "automatic_measurement_mode is None"),
    ({"measure": 1, "mesure": 2}, "mesure and measure are the same keyword"),
    ({"optimiser": torch.optim.SGD}, "unknown keyword optimiser; did you mean optimizer?"),
    ({"optimizer": "Adam"}, "optimizer is 'Adam'; it must be callable"),
    ({"train": 3}, "train is 3; it must be callable"),
    ({"input_size": (3, 0)}, "input_size is 0"),
]


@pytest.mark.parametrize(("keywords", "message"), WRONG)
def test_wrong_keywords_are_named(keywords, message):
    with pytest.raises(ExpressivityError, match=f"space ('mine'|5).*{message}"):
        ArchitecturalSpace(**{"input_size": 3, "name": "mine", "architecture": Net, **keywords})


def test_a_network_that_cannot_be_built_is_named_with_its_size():
    space = ArchitecturalSpace(3, "mine", Net, [{}, {"widht": 4}])
    with pytest.raises(ExpressivityError, match=r"space 'mine', size 1: Net\(widht=4\) failed: TypeError: .*widht"):
        space.measured(1)
    with pytest.raises(
        ExpressivityError, match="space 'mine', size 0: architecture returned int; it must return an nn"
    ):
        ArchitecturalSpace(3, "mine", lambda: 3).build(0)
    with pytest.raises(ExpressivityError, match="space 'empty', size 0: the network has no trainable parameters"):
        ArchitecturalSpace(3, "empty", nn.Identity).measured(0)
