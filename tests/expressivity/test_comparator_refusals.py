"""Families, laws, routines and options that cannot be compared: the error names the space and the size."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, Normal

from expressivity import (
    ArchitecturalSpace,
    ArchitectureComparator,
    ExpressivityError,
)
from tests.expressivity.quick import QUICK


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("routine", "message"),
    [
        (lambda network, x, y: None, "train returned None; it must return the fitted network"),
        (lambda network, x: network, "fitting a network failed: TypeError"),
    ],
)
def test_routines_that_go_wrong(space, routine, message):
    own = space(name="own", train=routine)
    with pytest.raises(ExpressivityError, match=f"space 'own', size 0: {message}"):
        ArchitectureComparator(own, space(), space()).compare(**QUICK)


def test_families_that_do_not_fit_together(space):
    linear = {"in_features": 4, "out_features": 3}
    three = ArchitecturalSpace(4, "three", nn.Linear, linear, measure=20)
    with pytest.raises(ExpressivityError, match=r"size 0: output sizes differ: 'full' has \(4,\), 'three' has \(3,\)"):
        ArchitectureComparator(space(), three)
    with pytest.raises(ExpressivityError, match=r"input sizes differ: 'full' has \(4,\), 'low_rank' has \(5,\)"):
        ArchitectureComparator(space(), space("low_rank", rank=1, width=5, measure=20))
    with pytest.raises(ExpressivityError, match="same number of sizes; given: 'full' 3, 'full' 2"):
        ArchitectureComparator(space(sizes=[{}] * 3), space(sizes=[{}] * 2))
    with pytest.raises(ExpressivityError, match="A is <class .*; it must be an ArchitecturalSpace"):
        ArchitectureComparator(nn.Linear, space())
    with pytest.raises(ExpressivityError, match="device 'cudaa' cannot be used: RuntimeError"):
        ArchitectureComparator(space(), space(), device="cudaa")
    with pytest.raises(ExpressivityError, match="same number of sizes; given: 'full' 2, 'low_rank' 3"):
        ArchitectureComparator(space(sizes=[{}] * 2), space("low_rank", sizes=[{"rank": 1}] * 3))
    wrong_input = ArchitecturalSpace(4, "five", nn.Linear, {"in_features": 5, "out_features": 4}, measure=20)
    with pytest.raises(
        ExpressivityError, match=r"space 'five', size 0: the network does not accept inputs of size \(4,\)"
    ):
        ArchitectureComparator(space(), wrong_input)
    tuples = ArchitecturalSpace(4, "lstm", nn.LSTM, {"input_size": 4, "hidden_size": 4}, measure=20)
    with pytest.raises(
        ExpressivityError, match=r"'lstm', size 0: the network must return a tensor .* for 2 input rows; got tuple"
    ):
        ArchitectureComparator(space(), tuples)


def test_unequal_measures_need_a_base_or_a_tolerance(space):
    a, b = space(sizes=[{}, {"depth": 2}]), space("low_rank", rank=2, sizes=[{}, {"depth": 2}])
    c = space("low_rank", rank=1, sizes=[{}, {"depth": 2}], name="c")
    assert ArchitectureComparator(a, b).measures == {"A": [20, 40], "B": [20, 40]}
    with pytest.raises(ExpressivityError, match=r"tolerance 0\); 'full' has \[20, 40\], 'c' has \[12, 24\]; change"):
        ArchitectureComparator(a, c)
    with pytest.raises(ExpressivityError, match=r"tolerance 0.3\)"):
        ArchitectureComparator(a, c, tolerance=0.3)
    ArchitectureComparator(a, c, tolerance=0.4)
    ArchitectureComparator(a, c, b)


class Nan:
    """A law whose samples are all nan."""

    def sample(self, shape):
        return torch.full(tuple(shape), math.nan)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Nan(), "space 'full', size 0: law .* returned inputs that are not finite"),
        (Normal(torch.zeros(3), torch.ones(3)), r"law .* returned \(2, 3\) for 2 inputs; .* requires \(2, 4\)"),
        (MultivariateNormal(torch.zeros(7), torch.eye(7)), r"law .* returned \(2, 7\)"),
        ("normal", "law normal cannot be sampled"),
    ],
)
def test_laws_that_do_not_work(space, law, message):
    with pytest.raises(ExpressivityError, match=message):
        ArchitectureComparator(space(), space(), law=law)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_iterations": 0}, "max_iterations is 0; it must be a whole number, at least 1"),
        ({"sub_iterations": 2.5}, "sub_iterations is 2.5"),
        ({"variance_threshold": -1}, "variance_threshold is -1; it must be a number, at least 0"),
        ({"confidence": 1.0}, "confidence is 1.0; it must be a number between 0 and 1"),
        ({"seed": "a"}, "seed is 'a'"),
        ({"evaluation_rows": 1}, "evaluation_rows is 1; it must be a whole number, at least 2"),
        ({"stack_size": 0}, "stack_size is 0"),
    ],
)
def test_wrong_options(space, options, message):
    with pytest.raises(ExpressivityError, match=message):
        ArchitectureComparator(space(), space()).compare(**{**QUICK, **options})


def test_where_all_fits_diverge_nothing_is_compared(space):
    huge = space("full", lr=1e30, grad_clamp=None, optimizer=torch.optim.SGD, name="huge")
    with pytest.raises(ExpressivityError, match="space 'huge', size 0: all 8 fits diverged; lower lr"):
        ArchitectureComparator(space(), huge, space()).compare(**QUICK)
