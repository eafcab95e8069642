"""Seven architectures x the methods x what users of peft do."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model

from tests.t3nsor_peft.models import ARCHITECTURES, MERGEABLE, METHODS, config_of, logits, perturb
from tests.t3nsor_peft.reference import dense_update

CASES = [(name, method) for name in ARCHITECTURES for method in METHODS]
MERGING = [(name, method) for name in ARCHITECTURES for method in MERGEABLE]


def adapted(name: str, method: str, **changes):
    architecture = ARCHITECTURES[name]
    model = get_peft_model(architecture.model(), config_of(method, architecture, **changes)).eval()
    return model, architecture.inputs()


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return (torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)).item()


@pytest.mark.parametrize(("name", "method"), CASES)
def test_starts_as_the_base_model_trains_and_comes_back(name, method, tmp_path):
    base = logits(ARCHITECTURES[name].model(), ARCHITECTURES[name].inputs())
    model, inputs = adapted(name, method)
    assert torch.allclose(logits(model, inputs), base, atol=1e-5)
    model.train()
    model(**inputs).logits.square().mean().backward()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert trained
    assert all(parameter.grad is not None for parameter in trained)
    assert any(parameter.grad.any() for parameter in trained)
    perturb(model.eval())
    changed = logits(model, inputs)
    assert not torch.allclose(changed, base, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(logits(model, inputs), base)
    model.save_pretrained(tmp_path)
    for options in ({}, {"low_cpu_mem_usage": True}):
        again = PeftModel.from_pretrained(ARCHITECTURES[name].model(), tmp_path, **options).eval()
        assert torch.equal(logits(again, inputs), changed)
    assert torch.equal(logits(copy.deepcopy(model), inputs), changed)


@pytest.mark.parametrize(("name", "method"), MERGING)
def test_merging_computes_the_same(name, method):
    model, inputs = adapted(name, method)
    perturb(model)
    before = logits(model, inputs)
    model.merge_adapter()
    assert relative_difference(logits(model, inputs), before) < 3e-6
    model.unmerge_adapter()
    assert torch.equal(logits(model, inputs), before)
    merged = model.merge_and_unload(safe_merge=True)
    assert not any("tt_" in key for key in merged.state_dict())
    assert relative_difference(logits(merged, inputs), before) < 3e-6


@pytest.mark.parametrize("method", MERGEABLE)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_updates_equal_those_of_dense_matrices(name, method):
    model, _ = adapted(name, method)
    perturb(model)
    found = 0
    for module in model.modules():
        if hasattr(module, "get_delta_weight"):
            expected = dense_update(module, "default")
            assert torch.allclose(module.get_delta_weight("default").double(), expected, rtol=1e-5, atol=1e-7)
            x = torch.randn(2, 5, module.in_features)
            weight = module.weight.double() + expected
            y = x.double() @ (weight if module.fan_in_fan_out else weight.T)
            y = y if module.bias is None else y + module.bias
            assert torch.allclose(module(x).double(), y, rtol=1e-4, atol=1e-5)
            found += 1
    assert found > 4


@pytest.mark.parametrize(("name", "method"), CASES)
def test_several_adapters(name, method):
    architecture = ARCHITECTURES[name]
    options = {"modules_to_save": None} if name == "vit" else {}
    model, inputs = adapted(name, method, **options)
    model.add_adapter("other", config_of(method, architecture, **options))
    perturb(model, 1)
    own = logits(model, inputs)
    model.set_adapter("other")
    trained = [key for key, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".other" in key for key in trained)
    perturb(model, 2)
    other = logits(model, inputs)
    base = logits(architecture.model(), inputs)
    assert not torch.allclose(own, other, atol=1e-3)
    mixed = logits(model, inputs, adapter_names=["other", "__base__", "default"])
    for row, expected in enumerate((other, base, own)):
        assert torch.allclose(mixed[row], expected[row], atol=1e-5)
    with pytest.warns(UserWarning, match="Setting active adapter to default"):
        model.delete_adapter("other")
    assert not any(".other" in key for key in model.state_dict())
    model.set_adapter("default")
    assert torch.equal(logits(model, inputs), own)
