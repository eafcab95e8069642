"""`detach_adapters`: the model is its backbone again, and takes other adapters."""

import copy

import pytest
import torch
import transformers

from common.errors import ConfigError
from tests.methods import CASES, ONE_A_SITE, adapted, config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init


def plain(config, dtype=torch.float32):
    """The backbone of `adapted`."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config).to(dtype).eval()


def described(model) -> dict:
    """What a user sees of a model besides its values."""
    return {
        "modules": [(name, type(m), m.training) for name, m in model.named_modules(remove_duplicate=False)],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "parameters": [(name, p.dtype, p.requires_grad, p.grad) for name, p in model.named_parameters()],
        "buffers": [name for name, _ in model.named_buffers()],
        "tied": model.lm_head.weight is model.shared.weight,
        "attention": [part.config._attn_implementation for part in (model, model.encoder, model.decoder)],
        "tasks": model.task_switch.tasks,
        "size": model.backbone_size,
    }


def assert_is_backbone(model, backbone, batch):
    assert described(model) == described(backbone)
    state, expected = model.state_dict(), backbone.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)
    assert torch.equal(logits(model, batch), logits(backbone, batch))


@pytest.mark.parametrize("case", CASES)
def test_the_backbone_is_there_again(case, shallow_config, batch):
    model = adapted(shallow_config, config_for(case)).train()
    model(**batch).loss.backward()
    model.eval().detach_adapters()
    assert_is_backbone(model, plain(shallow_config), batch)


@pytest.mark.parametrize("case", [*ONE_A_SITE, "both"])
def test_in_half_precision_and_in_a_copy(case, shallow_config, batch):
    model = adapted(shallow_config, config_for(case, tasks=("a", "b")), dtype=torch.bfloat16)
    copied = copy.deepcopy(model)
    copied.detach_adapters()
    assert_is_backbone(copied, plain(shallow_config, torch.bfloat16), batch)
    with torch.no_grad():
        assert not torch.equal(model(**batch, task=model.task_switch.tasks[0]).logits, logits(copied, batch))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_trained_of_the_backbone_stays_trained(dtype, shallow_config, batch):
    keys = {"unfreeze_layer_norms": True, "unfreeze_lm_head": True}
    model = adapted(shallow_config, config_for("use_LoRA", **keys), dtype=dtype)
    model.name_or_path = "t5-nano"
    with model.adapters_disabled():
        expected = logits(model, batch)
    model.detach_adapters()
    assert torch.equal(logits(model, batch), expected)
    assert not torch.equal(expected, logits(plain(shallow_config, dtype), batch))
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model.name_or_path == ""


@pytest.mark.parametrize("second", ["both", "intrinsic_model"])
def test_other_adapters_can_be_attached(second, shallow_config, batch):
    model, fresh = adapted(shallow_config, config_for("both")), plain(shallow_config)
    with pytest.raises(ConfigError, match="has adapters already; remove them with detach_adapters"):
        model.attach_adapters(config_for(second))
    model.name_or_path = "t5-nano"
    model.detach_adapters()
    assert model.name_or_path == "t5-nano"
    for each in (model, fresh):
        torch.manual_seed(1)
        each.attach_adapters(config_for(second))
        moved(each)
    assert torch.equal(logits(model, batch), logits(fresh, batch))


def test_a_detached_model_is_saved_as_a_plain_one(shallow_config, batch, tmp_path):
    model = adapted(shallow_config, config_for("both"))
    model.detach_adapters()
    model.save_pretrained(tmp_path)
    loaded = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(logits(loaded.eval(), batch), logits(plain(shallow_config), batch))


def test_without_adapters_nothing_happens(shallow_config, batch):
    model = plain(shallow_config)
    model.shared.weight.requires_grad = False
    model.detach_adapters()
    assert not model.shared.weight.requires_grad


def test_the_name_is_forgotten_whatever_is_frozen_now(tiny_t5):
    model = T5ForConditionalGeneration.from_pretrained(tiny_t5)
    modify_model_after_init(model, config_for("use_LoRA", unfreeze_layer_norms=True)).requires_grad_(False)
    model.detach_adapters()
    assert model.name_or_path == ""
    model = T5ForConditionalGeneration.from_pretrained(tiny_t5)
    modify_model_after_init(model, config_for("use_LoRA")).detach_adapters()
    assert model.name_or_path == str(tiny_t5)
