"""Methods of transformers that an adapted model refuses, and layer lists that select nothing."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.integrations.peft import PeftAdapterMixin

from adapters import AdapterConfig
from common.errors import ConfigError
from tests.conftest import TINY_RUN
from tests.methods import adapted, config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init

FOREIGN = [name for name, value in vars(PeftAdapterMixin).items() if callable(value) and not name.startswith("_")]


@pytest.mark.parametrize("with_adapters", [True, False])
@pytest.mark.parametrize("name", FOREIGN)
def test_adapters_of_peft(tiny_config, tmp_path, name, with_adapters):
    model = adapted(tiny_config, config_for("use_LoRA")) if with_adapters else T5ForConditionalGeneration(tiny_config)
    before = {each: (parameter.requires_grad, parameter.sum().item()) for each, parameter in model.named_parameters()}
    calls = [lambda: getattr(model, name)(LoraConfig(target_modules=["q"]), adapter_name="x")]
    if name == "load_adapter":
        keys = (
            {"adapter_name": "x"},
            {"peft_config": LoraConfig()},
            {"adapter_state_dict": {}},
            {"is_trainable": True},
        )
        calls = [lambda each=each: model.load_adapter(tmp_path, **each) for each in keys]
    for call in calls:
        with pytest.raises(ConfigError, match="for adapters of peft.*attach_adapters") as error:
            call()
        assert "\n" not in str(error.value)
    after = {each: (parameter.requires_grad, parameter.sum().item()) for each, parameter in model.named_parameters()}
    assert after == before


def test_parts_of_peft_are_not_lost(tiny_config, tmp_path):
    """However they came in: nothing is attached to such a model, saved of it or exported."""
    model = adapted(tiny_config, config_for("use_LoRA"))
    plain = T5ForConditionalGeneration(tiny_config)
    for each in (model, plain):
        get_peft_model(each, LoraConfig(target_modules=["q"]))
    for call in (model.save_adapter, model.merge_and_export, model.load_adapter):
        with pytest.raises(ConfigError, match="of peft, which would be lost"):
            call(tmp_path / "new")
    with pytest.raises(ConfigError, match="of peft, which would be lost"):
        plain.attach_adapters(config_for("use_LoRA"))
    assert not (tmp_path / "new").exists()


def test_the_embeddings_of_an_adapted_model(tiny_config, batch):
    model = adapted(tiny_config, config_for("intrinsic_said"))
    expected, embedding = logits(model, batch), model.get_input_embeddings()
    for same in ((), (None,), (120,), (None, 8), (113, 8)):
        assert model.resize_token_embeddings(*same) is embedding
    model.set_input_embeddings(embedding)
    model.set_output_embeddings(model.get_output_embeddings())
    model.tie_weights()
    assert torch.equal(logits(model, batch), expected)
    for call in (
        lambda: model.resize_token_embeddings(121),
        lambda: model.resize_token_embeddings(None, 16),
        lambda: model.resize_token_embeddings(pad_to_multiple_of=16),
        lambda: model.set_input_embeddings(torch.nn.Embedding(120, 32)),
        lambda: model.set_output_embeddings(torch.nn.Linear(32, 120, bias=False)),
    ):
        with pytest.raises(ConfigError, match="the model has adapters"):
            call()
    assert torch.equal(logits(model, batch), expected)


def test_a_quantised_backbone(tiny_config):
    class Packed(torch.nn.Linear):
        pass

    model = T5ForConditionalGeneration(tiny_config)
    model.encoder.block[0].layer[0].SelfAttention.q = Packed(32, 32, bias=False)
    with pytest.raises(ConfigError, match="encoder.block.0.layer.0.SelfAttention.q is a Packed"):
        model.attach_adapters(config_for("use_LoRA"))


NOTHING = [
    ("task_adapter_layers_encoder is []", {"task_adapter_layers_encoder": [], "task_adapter_layers_decoder": []}),
    ("task_adapter_in_decoder is False", {"task_adapter_layers_encoder": [], "task_adapter_in_decoder": False}),
    ("task_adapter_layers_decoder is [9]", {"task_adapter_layers_encoder": [7], "task_adapter_layers_decoder": [9]}),
]


@pytest.mark.parametrize(("words", "keys"), NOTHING)
@pytest.mark.parametrize("case", ["adapters", "tensor_train_single", "use_LoRA", "use_TTLoRA", "tt_cross_layer", "ia3"])
def test_layers_that_select_nothing(tiny_config, case, words, keys):
    for device in ("cpu", "meta"):
        with torch.device(device), pytest.raises(ConfigError, match="has nothing to adapt in this model") as error:
            T5ForConditionalGeneration(tiny_config, config_for(case, **keys))
        assert words in str(error.value)


def test_layers_of_a_deeper_model_beside_something_else(tiny_config, capfd):
    keys = {"task_adapter_layers_encoder": [6], "task_adapter_layers_decoder": [8], "unfreeze_layer_norms": True}
    T5ForConditionalGeneration(tiny_config, config_for("adapters", **keys))
    assert "adapters has nothing to adapt in this model" in capfd.readouterr().err
    empty = {"task_adapter_layers_encoder": [], "task_adapter_layers_decoder": []}
    for case in ("adapters", "both"):
        with pytest.raises(ConfigError, match="has nothing to adapt"):
            T5ForConditionalGeneration(tiny_config, config_for(case, **{**keys, **empty}))


@pytest.mark.parametrize(
    ("case", "keys", "words"),
    [
        ("use_ScaleNorm", {"freeze_norms": True}, "use_ScaleNorm trains no parameter with freeze_norms"),
        ("use_TTLayerNorm", {"freeze_norms": True}, "trains no parameter"),
    ],
)
def test_methods_that_train_nothing(tiny_config, case, keys, words):
    with pytest.raises(ConfigError, match=words):
        T5ForConditionalGeneration(tiny_config, config_for(case, **keys))
    T5ForConditionalGeneration(tiny_config, config_for(case, **keys, unfreeze_lm_head=True))


def test_a_dry_run_finds_it_too(run_main):
    keys = {"task_adapter_layers_encoder": [7, 8], "task_adapter_in_decoder": False, "dry_run": True}
    keys["unfreeze_layer_norms"] = False
    status, errors, out = run_main("configs/tt_adapter.json", **TINY_RUN, **keys)
    assert status == 2
    assert "tensor_train_adapters has nothing to adapt in this model" in errors[-1]
    assert "task_adapter_layers_encoder is [7, 8]" in errors[-1]
    assert not out.exists()


INCIDENTAL = {"lora_dropout": 0.5, "merge_at_eval": False, "merge_dtype": "bfloat16"}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("case", ["use_LoRA", "use_TTLoRA", "ttlora_separate", "both"])
def test_a_loaded_adapter_takes_over_what_it_does_not_store(tiny_t5, tmp_path, batch, case, training):
    config = config_for(case)
    moved(T5ForConditionalGeneration.from_pretrained(tiny_t5, adapter_config=config)).save_adapter(tmp_path)
    wanted = AdapterConfig(**{**config.to_dict(), **INCIDENTAL})
    expected = T5ForConditionalGeneration.from_pretrained(tiny_t5, adapter_config=wanted)
    expected.load_adapter(tmp_path)
    late = modify_model_after_init(T5ForConditionalGeneration.from_pretrained(tmp_path).train(training), wanted)
    early = T5ForConditionalGeneration.from_pretrained(tmp_path, adapter_config=wanted)
    for model in (late, early):
        assert model.adapter_config == wanted
        assert not model.eval().merged
        results = []
        for each in (model, expected):
            torch.manual_seed(3)
            results.append(logits(each.train(), batch))
        assert torch.equal(*results)


def test_checkpointing_of_a_loaded_adapter(tiny_t5, tmp_path):
    config = config_for("tensor_train_adapters activated")
    T5ForConditionalGeneration.from_pretrained(tiny_t5, adapter_config=config).save_adapter(tmp_path)
    wanted = AdapterConfig(**{**config.to_dict(), "use_checkpointing": True})
    model = modify_model_after_init(T5ForConditionalGeneration.from_pretrained(tmp_path), wanted)
    adapter = model.encoder.block[0].layer[0].adapter_controller.adapters["task"]
    assert adapter.down_sampler.use_checkpointing
    different = AdapterConfig(**{**config.to_dict(), "tt_rank": 3})
    with pytest.raises(ConfigError, match="tt_rank is 3, there 2"):
        modify_model_after_init(model, different)
