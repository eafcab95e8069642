"""A merged weight when something is written, replaced or asked for gradients: it is never out of date."""

import copy
import threading

import pytest
import torch

from adapters import merge_adapters, remerge, rounding_losses, unmerge_adapters
from tests.methods import SOME_MERGEABLE as SOME
from tests.methods import adapted, config_for, linears, logits, moved, relative
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init


@pytest.mark.parametrize("case", SOME)
def test_with_gradients_the_branch_runs_and_gets_them(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case))
    assert model.merged

    def gradients():
        model.zero_grad()
        model(**batch).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    merged = gradients()
    model.train()
    for name, gradient in gradients().items():
        assert torch.allclose(merged[name], gradient, atol=1e-6), name
        assert gradient.any(), name


def test_a_frozen_branch_is_merged_even_with_gradients(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA", unfreeze_layer_norms=True))
    for layer in linears(model):
        layer.branch.requires_grad_(False)
        layer.branch.beside = None
    loss = model(**batch).loss
    loss.backward()
    assert model.encoder.final_layer_norm.weight.grad.any()


def changed_by(model, batch, change) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits after a change made while merged, those of the parallel layers)."""
    model.eval()
    before = logits(model, batch)
    change()
    merged = logits(model, batch)
    assert not torch.allclose(merged, before, atol=1e-4)
    unmerge_adapters(model)
    parallel = logits(model, batch)
    merge_adapters(model)
    return merged, parallel


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Adafactor", "fused AdamW"])
@pytest.mark.parametrize("case", SOME)
def test_a_step_while_merged_is_seen(tiny_config, batch, case, optimizer):
    model = adapted(tiny_config, config_for(case))
    trained = [p for p in model.parameters() if p.requires_grad]
    options = {"fused": True} if "fused" in optimizer else {}
    optimizer = getattr(torch.optim, optimizer.removeprefix("fused "))(trained, lr=0.1, **options)
    model(**batch).loss.backward()
    merged, parallel = changed_by(model, batch, optimizer.step)
    assert relative(merged, parallel) < 1e-5


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("case", SOME)
def test_a_state_dict_loaded_while_merged_is_seen(tiny_config, batch, case, assign):
    model = adapted(tiny_config, config_for(case))
    other = moved(copy.deepcopy(model), seed=2)
    merged, parallel = changed_by(model, batch, lambda: model.load_state_dict(other.state_dict(), assign=assign))
    assert relative(merged, parallel) < 1e-5
    assert torch.equal(merged, logits(other.eval(), batch))


def test_a_write_through_data_needs_remerge(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_LoRA"))
    before = logits(model, batch)
    model.encoder.block[0].layer[1].DenseReluDense.wi.branch.B.data.mul_(100)
    assert torch.equal(logits(model, batch), before)
    remerge(model)
    merged = logits(model, batch)
    assert not torch.allclose(merged, before, atol=1e-4)
    model.train()
    assert relative(logits(model, batch), merged) < 1e-5


def test_other_tensors_in_its_place_are_seen(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer = model.encoder.block[0].layer[1].DenseReluDense.wi
    other = moved(copy.deepcopy(model), seed=2)
    expected = logits(other.eval(), batch)
    parameters = dict(other.named_parameters())
    with torch.no_grad():
        assert torch.equal(torch.func.functional_call(model, parameters, kwargs=batch).logits, expected)
    before = layer.merged_weight().clone()
    state = other.encoder.block[0].layer[1].DenseReluDense.wi.branch.state_dict()
    layer.branch.load_state_dict(state, assign=True)
    assert not torch.equal(layer.merged_weight(), before)


def test_an_adapter_loaded_while_merged_and_compiled_is_seen(shallow_config, batch, tmp_path):
    model = adapted(shallow_config, config_for("use_TTLoRA"))
    other = moved(copy.deepcopy(model), seed=2).eval()
    other.save_adapter(tmp_path)
    compiled = torch.compile(model, backend="aot_eager")
    before = logits(compiled, batch)
    model.load_adapter(tmp_path)
    assert relative(logits(compiled, batch), logits(other, batch)) < 1e-5
    assert relative(before, logits(other, batch)) > 1e-3
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, fused=True)
    model(**batch).loss.backward()
    optimizer.step()
    assert relative(logits(compiled, batch), logits(model, batch)) < 1e-5


def test_a_step_of_another_model_builds_nothing_anew(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer = linears(model)[0]
    merged = layer.merged_weight()
    other = torch.nn.Linear(2, 2)
    other(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert layer.merged_weight() is merged


def test_a_model_built_in_inference_mode(tiny_config, batch):
    with torch.inference_mode():
        model = adapted(tiny_config, config_for("use_TTLoRA"))
        assert model(**batch).logits.isfinite().all()
        assert model.merged


def test_threads_that_share_a_model(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer, errors = linears(model)[0], []

    def work():
        try:
            for _ in range(200):
                layer.merged_weight().sum()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with torch.no_grad():
        for _ in range(200):
            layer.branch.tt.weight.cores[0].mul_(1.0)
    for thread in threads:
        thread.join()
    assert not errors


def test_a_trained_weight_gets_its_gradient(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer = linears(model)[0]
    layer.branch.requires_grad_(False)
    layer.weight.requires_grad_(True)
    model(**batch).loss.backward()
    assert layer.weight.grad.any()


def test_the_rounding_loss_of_no_change_is_zero(tiny_config):
    torch.manual_seed(0)
    config = config_for("use_TTLoRA", merge_dtype="bfloat16")
    model = modify_model_after_init(T5ForConditionalGeneration(tiny_config), config).eval()
    assert set(rounding_losses(model).values()) == {0.0}
