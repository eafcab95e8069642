"""Our T5 against transformers': equal without adapters, and what adapters add."""

import copy
import pickle

import pytest
import torch
import transformers

from adapters import AFTER_SUBLAYER_METHODS, AdapterConfig, AdapterController, ConfigError
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import count_parameters, freeze_model_params, get_adapter_config, modify_model_after_init

METHODS = sorted(AFTER_SUBLAYER_METHODS)


def config_for(method: str, **keys) -> AdapterConfig:
    flags = {method: True, "tensor_train_adapters": method.startswith("tensor_train")}
    flags.pop("adapters", None)
    return AdapterConfig(train_task_adapters=True, task_reduction_factor=4, tt_rank=2, **flags, **keys)


def adapted(config: T5Config, adapter_config: AdapterConfig, seed: int = 0) -> T5ForConditionalGeneration:
    """An adapted model whose adapters are not at their start."""
    torch.manual_seed(seed)
    model = modify_model_after_init(T5ForConditionalGeneration(config), adapter_config)
    for name, parameter in model.named_parameters():
        if "adapter_controller" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
def test_without_adapters_it_is_the_stock_model(tiny_config, batch, projection):
    config = T5Config(**{**tiny_config.to_dict(), "feed_forward_proj": projection})
    models = []
    for cls in (transformers.T5ForConditionalGeneration, T5ForConditionalGeneration):
        torch.manual_seed(0)
        models.append(cls(config))
    stock, ours = models
    assert list(stock.state_dict()) == list(ours.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(stock.parameters(), ours.parameters(), strict=True))
    outputs = [model(**batch) for model in models]
    assert torch.equal(outputs[0].logits, outputs[1].logits)
    for output in outputs:
        output.loss.backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(stock.parameters(), ours.parameters(), strict=True))
    texts = [model.eval().generate(batch["input_ids"], max_new_tokens=5, num_beams=2) for model in models]
    assert torch.equal(*texts)


def test_loading_a_stock_checkpoint(tiny_config, batch, tmp_path):
    stock = transformers.T5ForConditionalGeneration(tiny_config)
    stock.save_pretrained(tmp_path)
    ours = T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(stock.eval()(**batch).logits, ours(**batch).logits)
    _, info = T5ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    stock.half().save_pretrained(tmp_path)
    assert T5ForConditionalGeneration.from_pretrained(tmp_path).dtype == torch.float32
    assert T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("method", METHODS)
def test_both_constructors_attach_initialised_adapters(tiny_config, batch, tmp_path, method):
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path)
    config = config_for(method)
    torch.manual_seed(0)
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path, adapter_config=config)
    built = T5ForConditionalGeneration(tiny_config, adapter_config=config)
    assert list(loaded.state_dict()) == list(built.state_dict())
    assert all(p.isfinite().all() and p.abs().max() < 10 for p in loaded.parameters())
    assert len([m for n, m in built.named_modules() if n.endswith("adapter_controller")]) == 8
    assert "encoder.block.1.layer.1.adapter_controller.adapters.task.up_sampler.bias" in built.state_dict() or (
        method == "tensor_train_single"
    )


def test_the_adapter_follows_the_sublayer(tiny_config, batch):
    """encoder block: x + y + adapter(y) after the feed-forward, computed by hand."""
    model = adapted(tiny_config, config_for("tensor_train_adapters", add_adapter_in_self_attention=False))
    layer, x = model.encoder.block[0].layer[1], torch.randn(2, 3, 32)
    y = layer.DenseReluDense.wo(layer.DenseReluDense.act(layer.DenseReluDense.wi(layer.layer_norm(x))))
    assert torch.allclose(layer(x), x + y + layer.adapter_controller.adapters["task"](y), atol=1e-6)


T5_BASE_COUNTS = {
    "adapters": (config_for("adapters", unfreeze_layer_norms=True), 1_855_104, {"task_reduction_factor": 32}),
    "pfeiffer": (
        config_for("adapters", unfreeze_layer_norms=True, add_adapter_in_feed_forward=False),
        951_360,
        {"task_reduction_factor": 32},
    ),
    "adapters_drop": (
        config_for(
            "adapters",
            unfreeze_layer_norms=True,
            task_adapter_layers_encoder=list(range(5, 12)),
            task_adapter_layers_decoder=list(range(5, 12)),
        ),
        1_101_984,
        {"task_reduction_factor": 32},
    ),
    "low_rank": (config_for("low_rank_adapters", unfreeze_layer_norms=True), 161_664, {"task_reduction_factor": 32}),
    "norms_only": (AdapterConfig(freeze_backbone=True, unfreeze_layer_norms=True), 47_616, {}),
    # 48 sites, down 768 -> 24 (8x8x12, 2x3x4, rank 8): 128 + 1536 + 384, up the same, biases 24 + 768.
    "tensor_train": (
        config_for("tensor_train_adapters"),
        48 * (2 * 2048 + 792),
        {"tt_rank": 8, "task_reduction_factor": 32},
    ),
    "baseline": (AdapterConfig(), 222_903_552, {}),
    "head": (AdapterConfig(freeze_backbone=True, unfreeze_lm_head=True), 32_128 * 768, {}),
}


@pytest.mark.parametrize("name", T5_BASE_COUNTS)
def test_exact_trainable_parameters_on_t5_base(name):
    config, expected, changes = T5_BASE_COUNTS[name]
    config = AdapterConfig(**{**config.to_dict(), **changes})
    with torch.device("meta"):
        model = modify_model_after_init(T5ForConditionalGeneration(T5Config.from_shape("t5-base")), config)
    counts = count_parameters(model)
    assert counts["trainable"] == expected
    assert counts["backbone"] == 222_903_552


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_exactly_the_trainable_tensors(tiny_config, batch, method):
    model = adapted(tiny_config, config_for(method, unfreeze_layer_norms=True))
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        trained = "adapter_controller" in name or "layer_norm" in name
        assert parameter.requires_grad == trained, name
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name


def test_freezing_respects_marks(tiny_config):
    model = T5ForConditionalGeneration(tiny_config, adapter_config=config_for("tensor_train_adapters"))
    core = model.encoder.block[0].layer[0].adapter_controller.adapters["task"].down_sampler.weight.cores[0]
    core.requires_grad = False
    freeze_model_params(model)
    assert not core.requires_grad


@pytest.mark.parametrize("method", METHODS)
def test_checkpoint_round_trip(tiny_config, batch, tmp_path, method):
    torch.manual_seed(0)
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / "base")
    config = config_for(method, unfreeze_layer_norms=True)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapter_config=config)
    freeze_model_params(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))
    model.save_adapter(tmp_path / "adapter")
    fresh = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapter_config=config)
    assert not torch.allclose(fresh(**batch).logits, model(**batch).logits)
    fresh.load_adapter(tmp_path / "adapter")
    whole = T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter")
    with torch.no_grad():  # with gradients torch picks its kernels by what is frozen, and the last bits differ
        for other in (fresh, whole):
            assert torch.equal(other(**batch).logits, model(**batch).logits)
    assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 40_000


def test_loading_is_strict(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("adapters"))
    model.save_adapter(tmp_path)
    with pytest.raises(ConfigError, match=r"missing \['decoder.* unexpected \['decoder"):
        adapted(tiny_config, config_for("tensor_train_adapters")).load_adapter(tmp_path)
    narrower = adapted(tiny_config, AdapterConfig(**{**config_for("adapters").to_dict(), "task_reduction_factor": 8}))
    with pytest.raises(ConfigError, match="shapes decoder"):
        narrower.load_adapter(tmp_path)
    other = adapted(tiny_config, AdapterConfig(**{**config_for("adapters").to_dict(), "non_linearity": "relu"}))
    with pytest.raises(ConfigError, match="another configuration"):
        other.load_adapter(tmp_path)
    with pytest.raises(ConfigError, match="backbone that was never saved"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ConfigError, match="cannot be read"):
        model.load_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="no adapter description"):
        model.load_adapter(tmp_path)


def test_tasks_have_adapters_of_their_own(tiny_config, batch):
    model = adapted(tiny_config, get_adapter_config({"train_task_adapters": True}, tasks=["a", "b.c"]))
    first, second = (model(**batch, task=task).logits for task in ("a", "b.c"))
    assert not torch.allclose(first, second)
    assert torch.equal(model(**batch, task="a").logits, first)
    assert model.generate(batch["input_ids"], task="b.c", max_new_tokens=3).shape[0] == 3
    with pytest.raises(ValueError, match="name one of: a, b.c"):
        model(**batch)
    with pytest.raises(ValueError, match="task is 'z'"):
        model(**batch, task="z")


def test_a_recomputed_block_sees_the_task_of_its_forward(tiny_config, batch):
    model = adapted(tiny_config, get_adapter_config({"train_task_adapters": True}, tasks=["a", "b"])).train()

    def gradients():
        model.zero_grad()
        losses = [model(**batch, task=task).loss for task in ("a", "b")]
        for loss in losses:
            loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    expected = gradients()
    model.gradient_checkpointing_enable()
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    for name, gradient in gradients().items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_adapters_of_its_own(tiny_config, batch, copier):
    model = adapted(tiny_config, config_for("tensor_train_adapters"))
    before = model(**batch).logits
    twin = copier(model)
    assert torch.equal(twin(**batch).logits, before)
    with torch.no_grad():
        twin.encoder.block[0].layer[0].adapter_controller.adapters["task"].up_sampler.bias.add_(1)
    assert torch.equal(model(**batch).logits, before)
    assert not torch.equal(twin(**batch).logits, before)


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_and_autocast(tiny_config, batch, method):
    model = adapted(tiny_config, config_for(method))
    expected = model(**batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(model(**batch).logits.float(), expected, atol=0.3)
    half = T5ForConditionalGeneration(tiny_config).to(torch.bfloat16)
    half.attach_adapters(config_for(method))
    assert half(**batch).logits.dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", METHODS)
def test_a_backbone_loaded_in_half_precision(tiny_config, batch, tmp_path, method, dtype):
    """In float16 T5 keeps `wo` in float32: the adapter behind it meets another precision than its own."""
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path)
    config = config_for(method, add_layer_norm_before_adapter=True, unfreeze_layer_norms=True)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype, adapter_config=config)
    freeze_model_params(model)
    controllers = [module for module in model.modules() if isinstance(module, AdapterController)]
    assert {parameter.dtype for controller in controllers for parameter in controller.parameters()} == {dtype}
    loss = model(**batch).loss
    loss.backward()
    assert loss.isfinite()


def test_adapters_are_not_saved_as_a_model(tiny_config, tmp_path):
    model = T5ForConditionalGeneration(tiny_config, adapter_config=config_for("adapters"))
    with pytest.raises(ConfigError, match="save_adapter"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"task_adapter_layers_encoder": [0, 2]}, "task_adapter_layers_encoder holds 2; the encoder has layers 0 to 1"),
        ({"task_adapter_layers_decoder": [-1]}, "task_adapter_layers_decoder holds -1"),
        ({"tt_shape": [[4, 4], [2, 2]], "tensor_train_adapters": True}, "tt_shape"),
    ],
)
def test_sites_that_the_model_lacks(tiny_config, keys, words):
    with pytest.raises(ConfigError) as error:
        T5ForConditionalGeneration(tiny_config, AdapterConfig(train_task_adapters=True, **keys))
    assert words in str(error.value)


def test_adapters_are_attached_once(tiny_config):
    model = T5ForConditionalGeneration(tiny_config, AdapterConfig(train_task_adapters=True))
    with pytest.raises(ConfigError, match="has adapters already"):
        model.attach_adapters(AdapterConfig(train_task_adapters=True))


def test_unknown_size():
    with pytest.raises(ConfigError, match="built-in sizes: t5-small"):
        T5Config.from_shape("t5-huge")
