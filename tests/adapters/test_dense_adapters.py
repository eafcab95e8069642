"""Tensor-train adapters build the matrices of both their trains together where that is less work."""

import pytest
import torch
from torch import nn

from adapters import AdapterConfig, SharedParts
from adapters.adapter_modeling import TensorTrainAdapter
from t3nsor import ShapeError

# Keys, rows, and whether the matrices are built.
CASES = {
    "plain": ({}, 64, True),
    "no bias": ({"use_bias": False}, 64, True),
    "a bias that is a train": ({"use_TTBias": True, "TTBias_rk": 2}, 64, True),
    "frozen cores": ({"freeze_cores": "first"}, 64, True),
    "few rows": ({}, 8, False),
    "a small rank": ({"tt_rank": 1}, 64, False),
    "trains that differ": ({"reverse_out_shape": True}, 64, False),
    "measured": ({"tt_strategy": "measured"}, 64, False),
    "nothing kept": ({"tt_save": "least"}, 64, False),
    "a ring": ({"tensor_ring": True}, 64, False),
    "activations between": ({"cores_nonlinearity": "relu"}, 64, False),
}
BUILT = [case for case in CASES if CASES[case][-1]]


def adapter_of(d_model: int = 768, **keys) -> TensorTrainAdapter:
    torch.manual_seed(0)
    keys = {"tt_rank": 8, "tt_d": 3, "task_reduction_factor": 16, **keys}
    config = AdapterConfig(train_task_adapters=True, tensor_train_adapters=True, **keys)
    adapter = TensorTrainAdapter(config, d_model, SharedParts())
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.3)
    return adapter


@pytest.mark.parametrize("case", CASES)
def test_when_matrices_are_built(case):
    keys, rows, built = CASES[case]
    assert (adapter_of(**keys)._dense(torch.ones(rows, 768)) is not None) == built


@pytest.mark.parametrize("case", BUILT)
def test_values_and_gradients_are_those_of_the_engine(case, monkeypatch):
    adapter = adapter_of(**CASES[case][0]).double()
    y, g = (torch.randn(4, 16, 768, dtype=torch.float64) for _ in range(2))
    trained = [parameter for parameter in adapter.parameters() if parameter.requires_grad]

    def results():
        x = y.clone().requires_grad_()
        update = adapter(x)
        return [update.detach(), *torch.autograd.grad(update, [x, *trained], g)]

    found = results()
    monkeypatch.setattr(adapter, "_dense", lambda y: None)
    for one, other in zip(found, results(), strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_and_autocast_round_as_the_engine_does(monkeypatch):
    adapter, y = adapter_of(), torch.randn(64, 768)

    def results():
        with torch.autocast("cpu", torch.bfloat16):
            mixed = adapter(y)
        return [mixed, adapter(y.bfloat16())]

    found = results()
    assert all(update.dtype == torch.bfloat16 for update in found)
    monkeypatch.setattr(adapter, "_dense", lambda y: None)
    for one, other in zip(found, results(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * other.detach().abs().max().item())


@pytest.mark.parametrize(
    "x", [torch.ones(64, 767), torch.ones(64, 768, dtype=torch.float64), torch.ones(64, 768).long()]
)
def test_operands_that_do_not_fit_are_refused_as_before(x):
    with pytest.raises(ShapeError, match="x has shape|x of shape"):
        adapter_of()(x)


@pytest.mark.parametrize("how", ["exported", "compiled"])
def test_graphs_take_any_number_of_rows(how):
    adapter = adapter_of().eval()
    if how == "exported":
        rows = torch.export.Dim("rows", min=2)
        graph = torch.export.export(adapter, (torch.ones(64, 768),), dynamic_shapes=({0: rows},)).module()
    else:
        graph = torch.compile(adapter, backend="eager", fullgraph=True, dynamic=True)
    for count in (4, 512):
        y = torch.randn(count, 768)
        torch.testing.assert_close(graph(y), adapter(y), rtol=1e-4, atol=1e-3)
