"""Every method on a pretended accelerator computes what it computes on the CPU, with no tensor of the host among its
own, and nothing that makes host and device wait for each other."""

from concurrent.futures import ProcessPoolExecutor

import pytest

from tests import accelerated, launches
from tests.accelerator import register
from tests.methods import CASES, ONE_A_SITE
from tests.seq2seq.processes import CONTEXT
from tests.t3nsor_peft.models import METHODS


@pytest.fixture(scope="module")
def there():
    """there(function, *arguments) -> its result in a process that has the accelerator."""
    with ProcessPoolExecutor(1, CONTEXT, register_there) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def register_there() -> None:
    register()


@pytest.mark.parametrize("case", CASES)
def test_no_method_waits(there, case):
    stalls, differing = there(accelerated.of_method, case, case in ONE_A_SITE)
    assert not stalls
    assert not differing


@pytest.mark.parametrize("method", METHODS)
def test_no_method_of_peft_waits(there, method):
    stalls, differing = there(accelerated.of_peft, method)
    assert not stalls
    assert not differing


@pytest.mark.parametrize("with_float64", [True, False])
@pytest.mark.parametrize("fitted", accelerated.FITTED)
def test_fits_wait_no_more_often_for_more_networks_or_steps(there, fitted, with_float64):
    few, launches, difference = there(accelerated.of_fits, fitted, 2, 16, with_float64)
    assert difference < 1e-4
    more_networks, more_launches, _ = there(accelerated.of_fits, fitted, 4, 16, with_float64)
    assert few == more_networks
    more_steps, _, _ = there(accelerated.of_fits, fitted, 2, 8, with_float64)
    assert few == more_steps


def test_update_ranks_on_a_device_without_float64(there):
    wanted, found = there(accelerated.of_ranks)
    assert found.directions == wanted.directions
    assert found.matrix_rank == pytest.approx(wanted.matrix_rank, rel=1e-3)


# Kernels of a training step for each block of T5-base, relative to peft's LoRA: what the methods take now.
A_BLOCK = {
    "LoRA": 0.956,
    "square": 1.0,
    "skewed": 0.994,
    "d3": 1.075,
    "cross-layer": 1.203,
    "bottleneck": 1.03,
    "compacter": 1.295,
    "TT adapter": 1.236,
    "intrinsic": 1.685,
    "intrinsic said": 1.995,
}
A_LAYER = {"peft LoRA": 12, "LoRA": 9, "square": 10, "skewed": 9, "d3": 17, "svd": 23, "cross-layer": 18}


@pytest.mark.parametrize(("method", "most"), A_BLOCK.items())
def test_launches_of_a_block(there, method, most):
    assert there(launches.of_block, method) <= most


@pytest.mark.parametrize(("method", "most"), A_LAYER.items())
def test_launches_of_a_layer(there, method, most):
    assert there(launches.of_layer, method) <= most


ACTIONS = ["read", "branch", "to the host", "from numbers", "from the host", "mask", "nonzero", "index"]


@pytest.mark.parametrize("action", ACTIONS)
def test_what_waits_is_found(there, action):
    (found,) = there(accelerated.stalls_of, action)
    assert found.startswith("tests/accelerated.py")


def test_a_tensor_of_the_host_is_refused(there):
    assert "got tensors of the CPU" in there(accelerated.refusal)
