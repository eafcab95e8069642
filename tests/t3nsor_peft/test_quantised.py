"""Adapters beside quantised weights: bitsandbytes, torchao and optimum-quanto; each test is skipped without them."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.utils.quantization_utils import ForwardOnlyQuantizationBackend
from torch import nn

from t3nsor_peft import TTLoraConfig
from tests.t3nsor_peft.models import ARCHITECTURES, config_of, logits, perturb
from tests.t3nsor_peft.quantised import BASES, bits, equal, four_bit, replace_linears
from tests.t3nsor_peft.reference import dense_update

METHODS = ["tt_lora", "meta_tt", "tt_adapter"]
LLAMA = ARCHITECTURES["llama"]
CASES = [(base, method) for base in BASES for method in METHODS]
BY_HAND = [(*case, False) for case in CASES]
LOADED = [(base, "tt_lora", True) for base in BASES]
# Weights of torchao that were quantised by hand do not say how.
MERGEABLE = [
    (base, method, True, dtype)
    for base in BASES
    for method, dtype in (("tt_lora", torch.float32), ("meta_tt", torch.bfloat16))
]
MERGEABLE += [(base, "tt_lora", False, torch.bfloat16) for base in BASES if base != "torchao int8"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("llama")
    LLAMA.model().save_pretrained(path)
    return path


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return (torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)).item()


def updated(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if hasattr(module, "merged_weight")]


def train(model: nn.Module, steps: int = 4) -> list[float]:
    """The losses of some steps."""
    inputs, losses = LLAMA.inputs(), []
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    return losses


@pytest.mark.parametrize(("base", "method", "by_transformers"), BY_HAND + LOADED)
def test_cores_are_trained_and_saved_and_the_base_stays(base, method, by_transformers, directory, tmp_path):
    def fresh() -> nn.Module:
        return BASES[base].loaded(directory) if by_transformers else BASES[base].model()

    inputs, model = LLAMA.inputs(), fresh()
    before = logits(model, inputs)
    model = get_peft_model(model, config_of(method, LLAMA))
    stored = bits(model)
    losses = train(model)
    assert losses[-1] < losses[0] - 0.05
    assert equal(bits(model), stored)
    assert all(("tt_" in name) == (p.grad is not None) for name, p in model.named_parameters())
    trained = logits(model, inputs)
    assert not torch.allclose(trained, before, atol=1e-3)
    with model.disable_adapter():
        assert torch.equal(logits(model, inputs), before)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(PeftModel.from_pretrained(fresh(), tmp_path), inputs), trained)
    if base != "quanto int8":  # its tensors cannot be copied, with or without adapters
        assert torch.equal(logits(copy.deepcopy(model), inputs), trained)


@pytest.mark.parametrize(("base", "method"), CASES)
def test_several_adapters_share_a_batch_and_one_is_deleted(base, method):
    inputs, model = LLAMA.inputs(), BASES[base].model()
    outputs = {"__base__": logits(model, inputs)}
    model = get_peft_model(model, config_of(method, LLAMA)).eval()
    model.add_adapter("other", config_of(method, LLAMA))
    for seed, adapter in enumerate(("other", "default")):
        model.set_adapter(adapter)
        perturb(model, seed)
        outputs[adapter] = logits(model, inputs)
    names = ["other", "__base__", "default"]
    mixed = logits(model, inputs, adapter_names=names)
    for row, name in enumerate(names):
        # bitsandbytes int8 rounds x to int8, too: what differs in its last bit may come out differently
        assert torch.allclose(mixed[row], outputs[name][row], atol=1e-2 if base == "bitsandbytes int8" else 1e-5)
    model.delete_adapter("other")
    assert not any(".other" in name for name, _ in model.named_parameters())
    assert torch.equal(logits(model, inputs), outputs["default"])


@pytest.mark.parametrize(("base", "method", "by_transformers", "dtype"), MERGEABLE)
def test_merging_quantises_the_sum_and_unmerging_brings_all_back(base, method, by_transformers, dtype, directory):
    inputs, kind = LLAMA.inputs(), BASES[base]
    model = get_peft_model(
        kind.loaded(directory, dtype) if by_transformers else kind.model(dtype), config_of(method, LLAMA)
    ).eval()
    perturb(model)
    before, stored = logits(model, inputs), bits(model)
    sums = [layer.get_base_weight().double() + dense_update(layer, "default") for layer in updated(model)]
    parameters = [layer.get_base_layer().weight for layer in updated(model)]
    for _ in range(2):
        model.merge_adapter()
        for layer, expected, parameter in zip(updated(model), sums, parameters, strict=True):
            assert 0 < relative_error(layer.get_base_weight().double(), expected) < kind.error
            assert type(layer.get_base_layer().weight) is type(parameter)
            assert not layer.get_base_layer().weight.requires_grad
        merged = logits(model, inputs)
        assert 0 < relative_error(merged.float(), before.float()) < 3 * kind.error + 10 * torch.finfo(dtype).eps
        model.unmerge_adapter()
        assert all(layer.get_base_layer().weight is p for layer, p in zip(updated(model), parameters, strict=True))
        assert equal(bits(model), stored)
        assert torch.equal(logits(model, inputs), before)
    alone = model.merge_and_unload(safe_merge=True)
    assert not any("tt_" in name for name, _ in alone.named_modules())
    assert torch.equal(logits(alone, inputs), merged)


@pytest.mark.parametrize("base", BASES)
def test_adapters_merged_one_after_another_are_quantised_once(base, directory):
    model = get_peft_model(BASES[base].loaded(directory), config_of("tt_lora", LLAMA))
    model.add_adapter("other", config_of("tt_lora", LLAMA, init_weights=False))
    perturb(model)
    model.base_model.merge_adapter(["default", "other"])
    at_once = [layer.get_base_weight() for layer in updated(model)]
    model.unmerge_adapter()
    model.base_model.merge_adapter(["default"])
    with pytest.warns(UserWarning, match="additionally merging other"):
        model.base_model.merge_adapter(["other"])
    for layer, expected in zip(updated(model), at_once, strict=True):
        assert torch.allclose(layer.get_base_weight(), expected, atol=1e-6)


@pytest.mark.parametrize("base", BASES)
def test_a_safe_merge_refuses_nan_and_leaves_nothing_behind(base, directory):
    model = get_peft_model(BASES[base].loaded(directory), config_of("tt_lora", LLAMA))
    stored = bits(model)
    with torch.no_grad():
        updated(model)[-1].tt_lora_cores["default"].core_0[0, 0, 0, 0] = torch.nan
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
            merge(safe_merge=True)
    assert not any(layer.merged for layer in updated(model))
    assert equal(bits(model), stored)


def test_weights_that_do_not_say_how_they_were_quantised_are_not_merged_into():
    model = get_peft_model(BASES["torchao int8"].model(), TTLoraConfig(r=4, target_modules=["lm_head", "q_proj"]))
    perturb(model)
    for merge in (model.merge_adapter, model.merge_and_unload):
        with pytest.raises(ValueError, match="quantised by torchao; load it with transformers' TorchAoConfig"):
            merge()
    assert not any(layer.merged for layer in updated(model))


def test_backends_that_were_never_tried_are_not_merged_into():
    model = get_peft_model(LLAMA.model(), config_of("tt_lora", LLAMA))
    last = updated(model)[-1]
    last.quantization_backend = ForwardOnlyQuantizationBackend("gptq")
    for merge in (model.merge_adapter, model.merge_and_unload, last.merge):
        with pytest.raises(ValueError, match="nothing can be merged into this weight quantised by gptq; merge into"):
            merge()
    assert not any(layer.merged for layer in updated(model))


@pytest.mark.parametrize("nested", [False, True])
def test_a_weight_rearranged_for_the_kernel_of_the_cpu_is_merged_as_any_other(nested):
    functional = pytest.importorskip("bitsandbytes.functional")
    models = []
    for rearranged in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(128, 64, bias=False)).requires_grad_(False)
        replace_linears(model, lambda linear: four_bit(linear, nested))
        if rearranged:  # as Linear4bit.forward does in evaluation on a CPU with bfloat16
            weight = model[0].weight
            weight.data, weight.quant_state = functional._convert_weight_packed_for_cpu(weight.data, weight.quant_state)
        models.append(get_peft_model(model, TTLoraConfig(r=4, target_modules=["0"])))
        perturb(models[-1])
    usual, rearranged = (updated(model)[0] for model in models)
    expected, parameter, state = usual.get_base_weight(), rearranged.weight, vars(rearranged.weight.quant_state).copy()
    assert relative_error(rearranged.get_base_weight(), expected) < 0.004  # its scales are bfloat16
    for model in models:
        model.merge_adapter()
    assert relative_error(rearranged.get_base_weight(), usual.get_base_weight()) < 0.03
    assert rearranged.weight.quant_state.dtype == usual.weight.quant_state.dtype == torch.float32
    models[1].unmerge_adapter()
    assert rearranged.weight is parameter
    assert vars(parameter.quant_state) == state
    assert rearranged.get_base_layer().quant_state is parameter.quant_state


@pytest.mark.parametrize("base", BASES)
def test_quantised_layers_compute_by_themselves(base):
    model = get_peft_model(BASES[base].model(), TTLoraConfig(r=4, target_modules=["lm_head", "q_proj"])).eval()
    x = torch.ones(1, 3, 32)
    *quantised, head = updated(model)
    assert head._is_fusible(x, "default")
    assert not any(layer._is_fusible(x, "default") for layer in quantised)


@pytest.mark.parametrize(("base", "method"), CASES)
def test_cores_follow_the_dtype_of_the_computation(base, method):
    model = get_peft_model(BASES[base].model(torch.bfloat16), config_of(method, LLAMA, init_weights=False))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    y = model(**LLAMA.inputs()).logits
    assert y.dtype == torch.bfloat16
    y.float().square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("base", [name for name in BASES if name != "quanto int8"])
def test_models_prepared_for_training_in_few_bits_are_trained(base, directory):
    model = BASES[base].loaded(directory, torch.bfloat16)
    model = prepare_model_for_kbit_training(model, gradient_checkpointing_kwargs={"use_reentrant": False})
    model.config.use_cache = False
    model = get_peft_model(model, config_of("meta_tt", LLAMA))
    losses = train(model)
    assert losses[-1] < losses[0] - 0.05


def test_cores_start_from_the_svd_of_a_quantised_weight():
    model = BASES["bitsandbytes nf4"].model()
    before = logits(model, LLAMA.inputs())
    model = get_peft_model(model, config_of("tt_lora svd", LLAMA, r=8))
    assert torch.allclose(logits(model, LLAMA.inputs()), before, atol=1e-5)
    for layer in updated(model):
        start = layer.tt_lora_start["default"]
        assert any(core.any() for core in start)


def test_a_weight_that_is_quantised_for_each_batch_is_merged_into_exactly():
    nn8 = pytest.importorskip("bitsandbytes.nn")
    layer = nn8.Linear8bitLt(32, 16, bias=False, has_fp16_weights=True).requires_grad_(False)
    model = get_peft_model(nn.Sequential(layer), TTLoraConfig(r=4, target_modules=["0"])).eval()
    perturb(model)
    x, bare = torch.randn(4, 32), layer.weight.clone()
    before, expected = model(x), bare.double() + dense_update(updated(model)[0], "default")
    for _ in range(2):
        model.merge_adapter()
        assert torch.equal(updated(model)[0].weight, expected.float())
        assert relative_error(model(x), before) < 0.03
        model.unmerge_adapter()
        assert torch.equal(updated(model)[0].weight, bare)
        assert torch.equal(model(x), before)
