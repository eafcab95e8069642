"""What the layers of an intrinsic subspace share in a pass of the model is never older than the pass."""

import copy

import pytest
import torch

from adapters.intrinsic import IntrinsicSubspace, Mixing
from tests.methods import adapted, config_for
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init


@pytest.fixture
def model(shallow_config):
    return adapted(shallow_config, config_for("intrinsic_said")).train()


def gradients(model) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


@pytest.fixture
def mixings(monkeypatch):
    """The arguments of every computation of R H B theta."""
    calls, forward = [], Mixing.forward
    monkeypatch.setattr(Mixing, "forward", staticmethod(lambda *given: calls.append(given) or forward(*given)))
    return calls


def test_a_pass_mixes_once(model, batch, mixings):
    model(**batch).loss.backward()
    assert len(mixings) == 1
    with torch.no_grad():
        model.encoder(batch["input_ids"])
    assert len(mixings) == 2


def test_a_pass_changes_every_tensor_once(model, batch, monkeypatch):
    """The encoder, the decoder and the layer of the logits compute with one embedding, the largest tensor by far."""
    numbers, delta = [], IntrinsicSubspace.delta
    monkeypatch.setattr(
        IntrinsicSubspace, "delta", lambda self, *given: numbers.append(given[0]) or delta(self, *given)
    )
    model(**batch).loss.backward()
    subspace = next(module for module in model.modules() if isinstance(module, IntrinsicSubspace))
    assert sorted(numbers) == list(range(len(subspace.sizes)))


def test_passes_may_be_differentiated_one_after_the_other(model, batch):
    model(**batch).loss.backward()
    once = gradients(model)
    losses = [model(**batch).loss for _ in range(2)]
    for loss in losses:
        loss.backward()
    for grad, expected in zip(gradients(model), once, strict=True):
        assert torch.allclose(grad, 2 * expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("write", ["data", "fused"])
def test_no_write_is_missed(model, batch, write):
    """Neither increases the version counter of theta."""
    theta = next(p for name, p in model.named_parameters() if name.endswith("theta"))
    model(**batch).loss.backward()
    before = model(**batch).loss.item()
    if write == "data":
        theta.data += 0.5
    else:
        torch.optim.AdamW([theta], lr=0.5, fused=True).step()
    changed = model(**batch).loss.item()
    assert changed != before
    assert copy.deepcopy(model)(**batch).loss.item() == changed


def test_a_pass_that_fails_ends(model, batch, mixings):
    with pytest.raises(IndexError):
        model(**{**batch, "input_ids": batch["input_ids"] + 1000})
    model(**batch)
    model(**batch)
    assert len(mixings) == 3


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_blocks(model, batch, reentrant):
    model(**batch).loss.backward()
    expected = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model(**batch).loss.backward()
    for grad, wanted in zip(gradients(model), expected, strict=True):
        assert torch.allclose(grad, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["intrinsic_said", "intrinsic dense"])
def test_a_new_model_compiles_without_a_graph_break(case, shallow_config, batch):
    torch.manual_seed(0)
    model = modify_model_after_init(T5ForConditionalGeneration(shallow_config), config_for(case)).train()
    compiled = torch.compile(model.encoder, backend="eager", fullgraph=True)
    states = compiled(batch["input_ids"]).last_hidden_state
    assert torch.allclose(states, model.encoder(batch["input_ids"]).last_hidden_state, atol=1e-5)
