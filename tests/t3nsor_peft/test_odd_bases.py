"""Base models that do more than their weights say, fields that change between models, and input that is wrong."""

from dataclasses import replace

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import LlamaForCausalLM

from t3nsor_peft import MetaTTConfig, TTAdapterConfig, TTLoraConfig
from tests.t3nsor_peft.models import ARCHITECTURES

CONFIGS = {"tt_lora": TTLoraConfig, "meta_tt": MetaTTConfig, "tt_adapter": TTAdapterConfig}
UPDATES = ("tt_lora", "meta_tt")


class Base(nn.Module):
    def __init__(self, tied: bool = False):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(24, 24), nn.Linear(24, 24), nn.Linear(24, 12)
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(torch.relu(self.second(torch.relu(self.first(x)))))


def adapted(base, method="tt_lora", **fields):
    torch.manual_seed(0)
    model = get_peft_model(base, CONFIGS[method](r=4, **{"target_modules": ["first", "second"], **fields})).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture
def x():
    torch.manual_seed(1)
    return torch.randn(5, 24)


@pytest.mark.parametrize("method", CONFIGS)
def test_what_replaces_or_watches_a_call_sees_it(method, x):
    base = Base()
    own = base.second.forward
    base.second.forward = lambda inputs: 2 * own(inputs)
    expected = base(x)
    model = get_peft_model(base, CONFIGS[method](r=2, target_modules=["first", "second"])).eval()
    torch.testing.assert_close(model(x), expected)  # a new adapter changes nothing
    calls = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(type(module)))
    try:
        model(x)
    finally:
        handle.remove()
    assert calls.count(nn.Linear) == 3


@pytest.mark.parametrize("method", UPDATES)
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter:UserWarning")  # of peft
def test_a_base_that_is_partly_on_disk(method, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # peft writes a file below the directory it is in
    pytest.importorskip("peft", "0.21", reason="peft 0.20 does not find layers on disk by their names")
    architecture = ARCHITECTURES["llama"]
    model = get_peft_model(architecture.model(), CONFIGS[method](r=2, target_modules="all-linear")).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    with torch.no_grad():
        expected = model(**architecture.inputs()).logits
    model.save_pretrained(tmp_path / "adapter")
    model.unload().save_pretrained(tmp_path / "base")
    parts = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    parts |= {"model.layers.0": "cpu", "model.layers.1": "disk"}
    base = LlamaForCausalLM.from_pretrained(
        tmp_path / "base", device_map=parts, offload_folder=tmp_path / "disk"
    ).eval()
    places = {f"base_model.model.{name}": place for name, place in parts.items()}
    again = PeftModel.from_pretrained(
        base, tmp_path / "adapter", device_map=places, offload_dir=tmp_path / "disk2"
    ).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**architecture.inputs()).logits, expected)
        merged = again.merge_and_unload(safe_merge=True)
        torch.testing.assert_close(merged(**architecture.inputs()).logits, expected)


@pytest.mark.parametrize("method", UPDATES)
def test_merging_into_one_weight_of_two_layers_is_refused(method):
    base = Base(tied=True)
    model, before = adapted(base, method), base.out.weight.clone()
    with pytest.raises(ValueError, match="first and .*second share one weight"):
        model.merge_adapter()
    assert not model.base_model.model.first.merged
    assert torch.equal(base.out.weight, before)


def test_merging_into_a_computed_weight_is_refused():
    base = Base()
    nn.utils.parametrizations.weight_norm(base.first)
    with pytest.raises(ValueError, match="computed from others"):
        adapted(base).merge_adapter()


@pytest.mark.parametrize("method", CONFIGS)
def test_layers_that_torch_bypasses_are_refused(method):
    layer = nn.TransformerEncoderLayer(24, 2, 32, batch_first=True)
    for target in ("linear1", "out_proj"):
        with pytest.raises(ValueError, match="uses its weight without calling it"):
            get_peft_model(layer, CONFIGS[method](r=2, target_modules=[target]))


@pytest.mark.parametrize("method", CONFIGS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_computes_the_same_for_any_number_of_rows(method, x):
    model = adapted(Base(), method)
    traced = torch.jit.trace(model, x)
    for rows in (x, torch.cat([x, -x, 2 * x])):
        torch.testing.assert_close(traced(rows), model(rows))


@pytest.mark.parametrize("method", UPDATES)
def test_a_merged_adapter_is_not_deleted(method):
    model = adapted(Base(), method)
    model.add_adapter("b", CONFIGS[method](r=2, target_modules=["first", "second"]))
    model.merge_adapter(["default"])
    with pytest.raises(ValueError, match="merged"):
        model.base_model.delete_adapter("default")


CHANGES = [("tt_lora", {"r": 2}), ("tt_lora", {"ring": True}), ("tt_lora", {"tt_shape": ((2, 12), (12, 2))})]
CHANGES += [("tt_lora", {"rank_pattern": {"first": 2}}), ("meta_tt", {"r": 2}), ("tt_adapter", {"reduction_factor": 4})]


@pytest.mark.parametrize(("method", "change"), CHANGES)
def test_shapes_follow_a_field_that_changes(method, change):
    def shapes(model):
        return {name: tuple(p.shape) for name, p in model.named_parameters() if p.requires_grad}

    saved = adapted(Base(), method).peft_config["default"]
    fresh = {"target_modules": ["first", "second"], "r": 4, **change}
    expected = shapes(get_peft_model(Base(), CONFIGS[method](**fresh)))
    assert shapes(get_peft_model(Base(), replace(saved, **change))) == expected
    assert shapes(get_peft_model(Base(), saved)) != expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["default"], [1.0], "x.y"), "adapter_name is 'x.y'"),
        ((["default"], [float("nan")], "b"), "a weight is nan"),
        ((["default"], ["1"], "b"), "a weight is '1'"),
        ((["default"], 1, "b"), "both must be lists"),
        (("default", [1.0], "b"), "both must be lists"),
    ],
)
def test_a_sum_that_is_refused_leaves_nothing_behind(arguments, words):
    model = adapted(Base())
    with pytest.raises(ValueError, match=words):
        model.add_weighted_adapter(*arguments)
    assert list(model.peft_config) == ["default"]


def test_a_sum_that_fails_in_a_layer_leaves_nothing_behind(x):
    model = adapted(Base())
    expected, names = model(x), set(model.state_dict())
    with pytest.raises(KeyError, match="keys"):  # no module can be called so
        model.add_weighted_adapter(["default"], [2.0], "keys")
    assert (list(model.peft_config), model.active_adapters, set(model.state_dict())) == (
        ["default"],
        ["default"],
        names,
    )
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize(
    ("method", "fields", "words"),
    [
        ("tt_lora", {"lora_alpha": "8"}, "lora_alpha is '8'"),
        ("tt_lora", {"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ("tt_lora", {"lora_dropout": "0.1"}, "lora_dropout is '0.1'"),
        ("tt_lora", {"alpha_pattern": {"first": "x"}}, r"alpha_pattern\['first'\] is 'x'"),
        ("tt_lora", {"rank_pattern": {"fir(st": 2}}, "no regular expression"),
        ("tt_lora", {"ring": "yes"}, "ring is 'yes'"),
        ("meta_tt", {"init_weights": "svd"}, "init_weights is 'svd'"),
        ("tt_adapter", {"init_weights": "svd"}, "init_weights is 'svd'"),
        ("tt_adapter", {"reduction_factor": 2.5}, "reduction_factor is 2.5"),
        ("tt_adapter", {"non_linearity": ["relu"]}, "non_linearity is"),
        ("tt_adapter", {"non_linearity": "prelu"}, "non_linearity is 'prelu'"),
    ],
)
def test_wrong_values(method, fields, words):
    with pytest.raises(ValueError, match=words) as error:
        CONFIGS[method](**fields)
    assert len(str(error.value).splitlines()) == 1


def test_null_is_no_pattern():
    config = TTLoraConfig(rank_pattern=None, alpha_pattern=None, layer_shapes=None)
    assert (config.rank_pattern, config.alpha_pattern, config.layer_shapes) == ({}, {}, {})
