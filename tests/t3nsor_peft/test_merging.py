"""Merging into layers of the base model: precision, refusals, conversions in between, and sums of adapters."""

import pytest
import torch
from peft import get_peft_model
from torch import nn

from t3nsor_peft import TTAdapterConfig, TTLoraConfig
from tests.t3nsor_peft.models import ARCHITECTURES, MERGEABLE, config_of, logits, perturb
from tests.t3nsor_peft.reference import dense_update


def adapted(dtype: torch.dtype = torch.float32, **fields):
    fields = {"r": 4, "target_modules": "all-linear"} | fields
    model = get_peft_model(ARCHITECTURES["llama"].model().to(dtype), TTLoraConfig(**fields))
    perturb(model)
    return model


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, "merged_weight")]


@pytest.mark.parametrize("method", MERGEABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_ten_cycles_leave_every_bit(dtype, method):
    architecture = ARCHITECTURES["gpt2"]
    model = get_peft_model(architecture.model().to(dtype), config_of(method, architecture))
    perturb(model)
    parameters = dict(model.named_parameters())
    bits = {name: parameter.clone() for name, parameter in parameters.items()}
    for _ in range(10):
        model.merge_adapter()
        assert any(not torch.equal(bits[name], p) for name, p in model.named_parameters())
        model.unmerge_adapter()
    assert all(parameters[name] is parameter for name, parameter in model.named_parameters())
    assert all(torch.equal(bits[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_merged_weights_are_rounded_once(dtype):
    model = adapted(dtype)
    expected = [(layer.weight.double() + dense_update(layer, "default")).to(dtype) for layer in layers(model)]
    model.merge_adapter()
    for layer, weight in zip(layers(model), expected, strict=True):
        assert torch.equal(layer.weight, weight)


def test_adapters_merged_one_after_another_equal_those_merged_at_once():
    model = adapted(torch.bfloat16)
    model.add_adapter("other", TTLoraConfig(r=2, target_modules="all-linear", init_weights=False))
    model.base_model.merge_adapter(["default", "other"])
    at_once = [layer.weight.clone() for layer in layers(model)]
    model.unmerge_adapter()
    model.base_model.merge_adapter(["default"])
    with pytest.warns(UserWarning, match="additionally merging other"):
        model.base_model.merge_adapter(["other"])
    assert all(torch.equal(layer.weight, weight) for layer, weight in zip(layers(model), at_once, strict=True))


@pytest.mark.parametrize("convert", [nn.Module.double, nn.Module.bfloat16])
def test_a_conversion_while_merged_leaves_one_dtype(convert):
    model = adapted()
    bits = [layer.weight.clone() for layer in layers(model)]
    model.merge_adapter()
    convert(model)
    model.unmerge_adapter()
    assert len({parameter.dtype for parameter in model.parameters()}) == 1
    for layer, before in zip(layers(model), bits, strict=True):
        assert torch.equal(layer.weight, before.to(layer.weight.dtype))
    assert logits(model, ARCHITECTURES["llama"].inputs()).isfinite().all()


def test_a_safe_merge_refuses_nan_and_leaves_nothing_behind():
    model = adapted()
    inputs = ARCHITECTURES["llama"].inputs()
    last = layers(model)[-1].tt_lora_cores["default"].core_0
    bits, whole = {name: p.clone() for name, p in model.named_parameters()}, last.detach().clone()
    with torch.no_grad():
        last[0, 0, 0, 0] = torch.nan
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
            merge(safe_merge=True)
    with torch.no_grad():
        last.copy_(whole)
    assert not any(layer.merged for layer in layers(model))
    assert all(torch.equal(bits[name], parameter) for name, parameter in model.named_parameters())
    assert logits(model, inputs).isfinite().all()


def test_an_adapter_with_an_activation_is_not_merged():
    model = get_peft_model(ARCHITECTURES["llama"].model(), TTAdapterConfig(target_modules=["o_proj"]))
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="have an activation, so they cannot be merged"):
            merge()
    assert model.unload().config.model_type == "llama"


@pytest.mark.parametrize("fields", [{}, {"ring": True, "r": 2}, {"init_weights": "svd"}, {"use_rslora": True}])
def test_weighted_sums_are_exact(fields):
    model = adapted(**fields)
    model.add_adapter("other", TTLoraConfig(**{"target_modules": ["q_proj", "up_proj"], "lora_alpha": 3} | fields))
    model.set_adapter("other")
    perturb(model, 1)
    errors = model.base_model.add_weighted_adapter(["default", "other"], [0.5, -2.0], "sum")
    for layer in layers(model):
        expected = 0.5 * dense_update(layer, "default")
        if layer.has_adapter("other"):
            expected = expected - 2 * dense_update(layer, "other")
        assert torch.allclose(layer.get_delta_weight("sum").double(), expected, rtol=1e-4, atol=1e-6)
    assert max(errors.values()) < 1e-12
    assert len(errors) == len(layers(model))


def test_a_rounded_sum_says_its_error(tmp_path):
    model = adapted()
    model.add_adapter("other", TTLoraConfig(r=4, target_modules="all-linear", init_weights=False))
    errors = model.base_model.add_weighted_adapter(["default", "other"], [1, 1], "sum", "svd", svd_rank=3)
    named = {name.removeprefix("base_model.model."): layer for name, layer in model.named_modules()}
    for name, error in errors.items():
        exact = sum(dense_update(named[name], adapter) for adapter in ("default", "other"))
        difference = torch.linalg.vector_norm(dense_update(named[name], "sum") - exact) / torch.linalg.vector_norm(
            exact
        )
        assert difference.item() == pytest.approx(error, rel=1e-3, abs=1e-6)
        assert max(core.shape[-1] for core in named[name].tt_lora_cores["sum"]) <= 3
    assert max(errors.values()) > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["nobody"], [1.0], "sum"), "Adapter nobody does not exist"),
        ((["default"], [1.0, 2.0], "sum"), "1 adapters and 2 weights"),
        ((["default"], [1.0], "default"), "an adapter that exists"),
        ((["default"], [1.0], "sum", "ties"), "allowed: cat, svd"),
        ((["default"], [1.0], "sum", "cat", 3), "with combination_type 'svd'"),
        ((["default", "skewed"], [1.0, 1.0], "sum"), "adapters of different shapes"),
    ],
)
def test_impossible_sums_are_refused(arguments, message):
    model = adapted()
    model.add_adapter("skewed", TTLoraConfig(target_modules="all-linear", auto_shape_mode="skewed"))
    with pytest.raises(ValueError, match=message):
        model.base_model.add_weighted_adapter(*arguments)
    assert set(model.peft_config) == {"default", "skewed"}
