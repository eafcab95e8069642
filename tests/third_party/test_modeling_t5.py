"""Our T5 against transformers': equal without adapters, and what adapters add."""

import pytest
import torch
import transformers

from adapters import AdapterConfig
from common.errors import ConfigError
from tests.methods import CASES, adapted, changed, config_for
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import freeze_model_params, get_adapter_config


@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
def test_without_adapters_it_is_the_stock_model(tiny_config, batch, projection):
    config = changed(tiny_config, feed_forward_proj=projection)
    assert config.is_gated_act == projection.startswith("gated")
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


@pytest.mark.parametrize("case", CASES)
def test_both_constructors_attach_initialised_adapters(tiny_config, tiny_t5, case):
    config = config_for(case)
    torch.manual_seed(0)
    loaded = T5ForConditionalGeneration.from_pretrained(tiny_t5, adapter_config=config)
    built = T5ForConditionalGeneration(tiny_config, adapter_config=config)
    assert list(loaded.state_dict()) == list(built.state_dict())
    assert all(p.isfinite().all() and p.abs().max() < 10 for p in loaded.parameters())
    assert not loaded.training
    assert all(not module.training for module in loaded.modules())
    assert all(module.training for module in built.modules())


def test_names_read_like_the_architecture(tiny_config):
    names = T5ForConditionalGeneration(tiny_config, adapter_config=config_for("both")).state_dict()
    assert "encoder.block.1.layer.1.adapter_controller.adapters.task.up_sampler.bias" in names
    assert "encoder.block.1.layer.1.DenseReluDense.wi.branch.tt.weight.cores.0" in names
    assert "encoder.block.1.layer.1.DenseReluDense.wi.weight" in names
    assert "decoder.block.0.layer.0.SelfAttention.q.added_bias.bias" in names
    assert "decoder.final_layer_norm.scale" in names


def test_the_adapter_follows_the_sublayer(tiny_config, batch):
    """encoder block: x + y + adapter(y) after the feed-forward, computed by hand."""
    model = adapted(tiny_config, config_for("tensor_train_adapters", add_adapter_in_self_attention=False))
    layer, x = model.encoder.block[0].layer[1], torch.randn(2, 3, 32)
    y = layer.DenseReluDense.wo(layer.DenseReluDense.act(layer.DenseReluDense.wi(layer.layer_norm(x))))
    assert torch.allclose(layer(x), x + y + layer.adapter_controller.adapters["task"](y), atol=1e-6)


def test_freezing_respects_marks(tiny_config):
    model = T5ForConditionalGeneration(tiny_config, adapter_config=config_for("tensor_train_adapters"))
    core = model.encoder.block[0].layer[0].adapter_controller.adapters["task"].down_sampler.weight.cores[0]
    core.requires_grad = False
    freeze_model_params(model)
    assert not core.requires_grad


def test_loading_is_strict(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("adapters"))
    model.save_adapter(tmp_path)
    with pytest.raises(ConfigError, match="another configuration than the model's: tensor_train_adapters is False"):
        adapted(tiny_config, config_for("tensor_train_adapters")).load_adapter(tmp_path)
    for blocks, words in ((1, r"missing \[\], unexpected \['encoder"), (3, r"missing \['encoder.*, unexpected \[\]")):
        with pytest.raises(ConfigError, match=words):
            adapted(changed(tiny_config, num_layers=blocks), config_for("adapters")).load_adapter(tmp_path)
    with pytest.raises(ConfigError, match="shape mismatch: decoder"):
        adapted(changed(tiny_config, d_model=64), config_for("adapters")).load_adapter(tmp_path)
    other = adapted(tiny_config, AdapterConfig(**{**config_for("adapters").to_dict(), "non_linearity": "relu"}))
    with pytest.raises(ConfigError, match="another configuration"):
        other.load_adapter(tmp_path)
    with pytest.raises(ConfigError, match="backbone that was never saved"):
        T5ForConditionalGeneration.from_pretrained(tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ConfigError, match="cannot be read"):
        model.load_adapter(tmp_path)
    (tmp_path / "lab_adapter.json").write_text("{}")
    with pytest.raises(ConfigError, match="not an adapter description"):
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


def test_adapters_are_not_saved_as_a_model(tiny_config, tmp_path):
    model = T5ForConditionalGeneration(tiny_config, adapter_config=config_for("adapters"))
    with pytest.raises(ConfigError, match="save_adapter"):
        model.save_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"task_adapter_layers_decoder": [-1]}, "task_adapter_layers_decoder contains -1; blocks are counted from 0"),
        ({"tt_shape": [[4, 4], [2, 2]], "tensor_train_adapters": True}, "tt_shape"),
    ],
)
def test_sites_that_the_model_lacks(tiny_config, keys, words):
    with pytest.raises(ConfigError) as error:
        T5ForConditionalGeneration(tiny_config, AdapterConfig(train_task_adapters=True, **keys))
    assert words in str(error.value)


def test_layers_of_a_deeper_model_are_left_out_with_a_warning(tiny_config, capfd):
    """A published file may name the layers 5 to 11 of a model of 12."""
    model = T5ForConditionalGeneration(tiny_config, config_for("adapters", task_adapter_layers_encoder=[1, 5]))
    adapted_blocks = {name.split(".adapter_controller")[0] for name in model.state_dict() if "controller" in name}
    assert {name[:15] for name in adapted_blocks if "encoder" in name} == {"encoder.block.1"}
    assert "task_adapter_layers_encoder contains [5]; the encoder has blocks 0 to 1, so only [1] are adapted" in (
        capfd.readouterr().err
    )


def test_adapters_are_attached_once(tiny_config):
    model = T5ForConditionalGeneration(tiny_config, AdapterConfig(train_task_adapters=True))
    with pytest.raises(ConfigError, match="has adapters already"):
        model.attach_adapters(AdapterConfig(train_task_adapters=True))


def test_unknown_size():
    with pytest.raises(ConfigError, match="built-in sizes: t5-small"):
        T5Config.from_shape("t5-huge")
