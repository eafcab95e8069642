"""Adapters in peft's format: the same logits in peft and here, both ways; what cannot be the same is refused."""

import json
import shutil
from dataclasses import replace

import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import T5ForConditionalGeneration as PlainT5

import t3nsor_peft
from common.errors import ConfigError
from seq2seq.models import base_of
from tests.conftest import TINY
from tests.methods import config_for, logits, moved
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import modify_model_after_init

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL = ["wi", "wo", "q", "k", "v", "o"]
EXPORTED = {
    "lora": ("use_LoRA", {}),
    "lora scaled": ("use_LoRA", {"lora_alpha": 5.0, "lora_targets": ["q", "v"], "lora_dropout": 0.1}),
    "lora all": ("use_LoRA", {"lora_targets": ALL, "unfreeze_layer_norms": True}),
    "lora blocks": ("use_LoRA", {"lora_targets": ["q", "wo"], "task_adapter_layers_encoder": [1]}),
    "lora in the encoder": ("use_LoRA", {"task_adapter_in_decoder": False, "lora_alpha": 3.0}),
    "lora in the decoder": ("use_LoRA", {"task_adapter_layers_encoder": [], "task_adapter_layers_decoder": [0]}),
    "ia3": ("ia3", {}),
    "ia3 blocks and norms": ("ia3", {"task_adapter_layers_decoder": [1], "unfreeze_layer_norms": True}),
    "prompt": ("prefix_tuning", {}),
    "tt": ("use_TTLoRA", {"lora_targets": ALL, "lora_alpha": 0.5}),
    "tt ring": ("use_TTLoRA", {"tensor_ring": True, "tt_d": 3, "freeze_cores": "first"}),
    "tt ring of rank 1": ("use_TTLoRA", {"tensor_ring": True, "tt_rank": 1}),
    "tt skewed": ("use_TTLoRA", {"auto_shape_mode": "skewed", "unfreeze_layer_norms": True}),
    "tt mixed": ("use_TTLoRA", {"auto_shape_mode": "mixed", "tt_d": 3, "reverse_out_shape": True}),
    "tt auto": ("use_TTLoRA", {"tt_d": "auto", "task_adapter_layers_encoder": [1]}),
    "tt shape": ("use_TTLoRA", {"tt_shape": [[2, 16], [48, 1]]}),
    "tt svd": ("use_TTLoRA", {"TTLoRA_init": "svd"}),
}


@pytest.fixture(scope="module")
def gated_t5(tmp_path_factory):
    directory = tmp_path_factory.mktemp("gated")
    torch.manual_seed(0)
    config = T5Config(
        **TINY, vocab_size=120, dropout_rate=0.0, feed_forward_proj="gated-gelu", decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(directory)
    return directory


def adapted(base, method="use_LoRA", dtype=torch.float32, **keys):
    model = T5ForConditionalGeneration.from_pretrained(base, dtype=dtype)
    return moved(modify_model_after_init(model, config_for(method, **keys))).eval()


def in_peft(base, directory, dtype=torch.float32):
    return PeftModel.from_pretrained(PlainT5.from_pretrained(base, dtype=dtype), directory).eval()


def close(a, b, tolerance=1e-6):
    return (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1)


def masked(batch):
    mask = torch.ones_like(batch["input_ids"])
    mask[0, 5:] = 0
    return {**batch, "attention_mask": mask}


GATED = ("lora", "lora blocks", "ia3", "tt")  # those that see the two inner layers of a gated feed-forward


@pytest.mark.parametrize(("case", "gated"), [*((case, False) for case in EXPORTED), *((case, True) for case in GATED)])
def test_there_and_back(case, gated, tiny_t5, gated_t5, tmp_path, batch):
    base, (method, keys) = gated_t5 if gated else tiny_t5, EXPORTED[case]
    model = adapted(base, method, **keys)
    model.export_peft(tmp_path)
    expected, plain = logits(model, masked(batch)), PlainT5.from_pretrained(base).eval()
    assert not close(logits(plain, masked(batch)), expected, 1e-3)
    assert close(logits(in_peft(base, tmp_path), masked(batch)), expected)
    assert base_of(str(tmp_path)) == str(base)
    back = T5ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert close(logits(back, masked(batch)), expected)
    fresh = modify_model_after_init(T5ForConditionalGeneration.from_pretrained(base), config_for(method, **keys))
    fresh.load_adapter(tmp_path)
    assert torch.equal(logits(fresh.eval(), masked(batch)), expected)
    given = T5ForConditionalGeneration.from_pretrained(tmp_path, adapter_config=config_for(method, **keys))
    assert torch.equal(logits(given.eval(), masked(batch)), logits(fresh, masked(batch)))
    back.export_peft(tmp_path / "again")
    one, two = load_file(tmp_path / WEIGHTS), load_file(tmp_path / "again" / WEIGHTS)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", ["use_LoRA", "use_TTLoRA"])
def test_the_branches_of_one_task(method, tiny_t5, tmp_path, batch):
    model = T5ForConditionalGeneration.from_pretrained(tiny_t5)
    config = replace(config_for(method), tasks=("a.b", "c"))
    moved(modify_model_after_init(model, config)).eval()
    for task in config.tasks:
        model.export_peft(tmp_path / task, task)
        with torch.no_grad():
            expected = model(**batch, task=task).logits
        assert close(logits(in_peft(tiny_t5, tmp_path / task), batch), expected)
        assert close(logits(T5ForConditionalGeneration.from_pretrained(tmp_path / task).eval(), batch), expected)
    for task, words in ((None, "needs a task"), ("d", "got the task 'd'")):
        with pytest.raises(ConfigError, match=words):
            model.export_peft(tmp_path / "no", task)
    with pytest.raises(ConfigError, match="got the task 'd'"):
        adapted(tiny_t5).export_peft(tmp_path / "no", "d")


MADE_IN_PEFT = {
    "lora": lambda: peft.LoraConfig(r=2, lora_alpha=3, target_modules=["q", "v"]),
    "rslora": lambda: peft.LoraConfig(r=3, lora_alpha=5, use_rslora=True, target_modules=["wi", "wo"]),
    "pattern": lambda: peft.LoraConfig(r=2, target_modules=r"encoder\.block\.1\..*\.(q|o)"),
    "layers": lambda: peft.LoraConfig(r=2, target_modules=["k"], layers_to_transform=[1], layers_pattern="block"),
    "excluded": lambda: peft.LoraConfig(r=2, target_modules=["q"], exclude_modules=r"decoder.*"),
    "norms": lambda: peft.LoraConfig(r=2, target_modules=["wi"], modules_to_save=["layer_norm", "final_layer_norm"]),
    "ia3": lambda: peft.IA3Config(target_modules=["k", "v", "wo"], feedforward_modules=["wo"]),
    "tt": lambda: t3nsor_peft.TTLoraConfig(r=3, d=3, lora_alpha=2, target_modules=ALL, use_rslora=True),
    "tt svd": lambda: t3nsor_peft.TTLoraConfig(r=2, init_weights="svd", target_modules=["wi", "wo"]),
    "tt skewed ring": lambda: t3nsor_peft.TTLoraConfig(r=2, auto_shape_mode="skewed", ring=True, target_modules=["k"]),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4),  # with a second half for the decoder
}


def made_in_peft(config, base, directory):
    config.task_type = "SEQ_2_SEQ_LM"
    torch.manual_seed(0)
    model = moved(get_peft_model(PlainT5.from_pretrained(base), config))
    model.save_pretrained(directory)
    return model.eval()


@pytest.mark.parametrize("case", MADE_IN_PEFT)
def test_made_in_peft(case, tiny_t5, tmp_path, batch):
    theirs = made_in_peft(MADE_IN_PEFT[case](), tiny_t5, tmp_path)
    assert close(logits(T5ForConditionalGeneration.from_pretrained(tmp_path).eval(), batch), logits(theirs, batch))


@pytest.mark.parametrize("method", ["use_LoRA", "ia3", "prefix_tuning"])
def test_half_precision(method, tiny_t5, tmp_path, batch):
    keys = {} if method == "prefix_tuning" else {"unfreeze_layer_norms": True}
    model = adapted(tiny_t5, method, dtype=torch.bfloat16, **keys)
    model.export_peft(tmp_path)
    back = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    assert torch.equal(logits(back, batch), logits(model, batch))
    expected = logits(model, batch).float()
    assert close(logits(in_peft(tiny_t5, tmp_path, torch.bfloat16), batch).float(), expected, 0.03)


REFUSED = {
    "bitfit": ("bitfit", {}, "bitfit has no equal in peft; save it with save_adapter"),
    "adapters": ("adapters", {}, "adapters has no equal in peft"),
    "two": ("use_LoRA", {"use_ScaleNorm": True}, "one at a time"),
    "prefixes": ("attention_prefix_tuning", {}, "self-attention alone"),
    "shared cores": ("use_TTLoRA", {"share_cores": "first"}, "share_cores is 'first'"),
    "activation": ("use_TTLoRA", {"cores_nonlinearity": "gelu"}, "cores_nonlinearity is 'gelu'"),
    "ring from an SVD": ("use_TTLoRA", {"tensor_ring": True, "TTLoRA_init": "svd"}, "tensor_ring is true"),
    "head": ("use_LoRA", {"unfreeze_lm_head": True}, "unfreeze_lm_head is true"),
    "norms and prompt": ("prefix_tuning", {"unfreeze_layer_norms": True}, "unfreeze_layer_norms is true"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_no_equal_in_peft(case, tiny_t5, tmp_path):
    method, keys, words = REFUSED[case]
    with pytest.raises(ConfigError, match=words) as error:
        adapted(tiny_t5, method, **keys).export_peft(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_places_that_are_refused(tiny_t5, tiny_config, tmp_path):
    model = adapted(tiny_t5)
    model.save_adapter(tmp_path / "ours")
    with pytest.raises(ConfigError, match="contains an adapter of this project"):
        model.export_peft(tmp_path / "ours")
    nameless = modify_model_after_init(T5ForConditionalGeneration(tiny_config), config_for("use_LoRA"))
    with pytest.raises(ConfigError, match="base_model_name_or_path"):
        nameless.export_peft(tmp_path / "nameless")


@pytest.fixture(scope="module")
def written(tiny_t5, tmp_path_factory):
    directory = tmp_path_factory.mktemp("peft")
    adapted(tiny_t5, lora_targets=["q", "v"]).export_peft(directory)
    return directory


@pytest.fixture
def exported(written, tmp_path):
    return shutil.copytree(written, tmp_path / "exported")


KEYS = {
    "peft_type": ("ADALORA", "allowed: LORA, IA3, PROMPT_TUNING, TT_LORA"),
    "task_type": ("CAUSAL_LM", "SEQ_2_SEQ_LM"),
    "rank_pattern": ({"q": 4}, "use_LoRA does not have"),
    "alpha_pattern": ({"q": 4}, "use_LoRA does not have"),
    "use_dora": (True, "use_LoRA does not have"),
    "lora_bias": (True, "use_LoRA does not have"),
    "bias": ("all", "allowed: 'none'"),
    "init_lora_weights": ("pissa", "allowed: True"),
    "fan_in_fan_out": (True, "use_LoRA does not have"),
    "layer_replication": ([[0, 1]], "use_LoRA does not have"),
    "a_key_of_tomorrow": (1, "use_LoRA does not have"),
    "lora_alpha": ("8", "finite number"),
    "r": (3, "lora_rank|r is|does not match"),
    "revision": ("v2", "load_adapter"),
    "base_model_name_or_path": (3, "a name or a path"),
}


@pytest.mark.parametrize("key", KEYS)
def test_keys_that_are_refused(key, exported):
    value, words = KEYS[key]
    content = json.loads((exported / CONFIG).read_text())
    (exported / CONFIG).write_text(json.dumps({**content, key: value}))
    with pytest.raises(ConfigError, match=words) as error:
        T5ForConditionalGeneration.from_pretrained(exported)
    assert key in str(error.value) or key == "r"
    assert len(str(error.value).splitlines()) == 1


def without(part):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


TENSORS = {
    "one layer": (
        without("decoder.block.1.layer.1.EncDecAttention.q"),
        "target_modules: decoder.block.1.layer.1.EncDec",
    ),
    "one factor": (without("encoder.block.0.layer.0.SelfAttention.q.lora_A"), "missing|is missing"),
    "the embedding": (
        lambda t: {**t, "base_model.model.shared.weight": torch.ones(120, 32)},
        "modules_to_save: .*shared",
    ),
    "one norm": (lambda t: {**t, "base_model.model.encoder.final_layer_norm.weight": torch.ones(32)}, "all or none"),
    "infinite": (lambda t: {name: tensor / 0 for name, tensor in t.items()}, "damaged"),
    "nothing": (lambda t: {}, "damaged"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_are_refused(case, exported):
    change, words = TENSORS[case]
    save_file(change(load_file(exported / WEIGHTS)), exported / WEIGHTS)
    with pytest.raises(ConfigError, match=words) as error:
        T5ForConditionalGeneration.from_pretrained(exported)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
def test_damaged_files(file, exported, tiny_t5):
    model = adapted(tiny_t5, lora_targets=["q", "v"])
    (exported / file).write_bytes((exported / file).read_bytes()[:60])
    for load in (T5ForConditionalGeneration.from_pretrained, model.load_adapter):
        with pytest.raises(ConfigError, match=file) as error:
            load(exported)
        assert len(str(error.value).splitlines()) == 1


def test_another_backbone(exported, tiny_config, tmp_path):
    torch.manual_seed(3)
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / "same size")
    with pytest.raises(ConfigError, match="whose weights differ"):
        adapted(tmp_path / "same size", lora_targets=["q", "v"]).load_adapter(exported)
    narrow = T5Config(**{**TINY, "d_model": 16}, vocab_size=120, decoder_start_token_id=0)
    T5ForConditionalGeneration(narrow).save_pretrained(tmp_path / "narrow")
    with pytest.raises(ConfigError, match=r"is \(2, 32\), in the model \(2, 16\)"):
        adapted(tmp_path / "narrow", lora_targets=["q", "v"]).load_adapter(exported)
    content = json.loads((exported / CONFIG).read_text())
    (exported / CONFIG).write_text(json.dumps({**content, "base_model_name_or_path": str(tmp_path / "narrow")}))
    with pytest.raises(ConfigError, match=r"is \[2, 32\], not \[2, 16\]"):
        T5ForConditionalGeneration.from_pretrained(exported)


def test_other_adapters_than_the_models(exported, tiny_t5):
    for keys, words in (
        ({"lora_alpha": 9.0}, "lora_alpha is 2, in the model 9"),
        ({"lora_targets": ["q"]}, "unexpected"),
    ):
        with pytest.raises(ConfigError, match=words):
            adapted(tiny_t5, **{"lora_targets": ["q", "v"], **keys}).load_adapter(exported)
    with pytest.raises(ConfigError, match="the model has ia3"):
        adapted(tiny_t5, "ia3").load_adapter(exported)
