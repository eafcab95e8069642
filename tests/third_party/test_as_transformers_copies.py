"""Loading, copying and saving: without adapters our class does what that of transformers does, bit for bit."""

import copy
import io
import json
import pickle

import pytest
import torch
import transformers

from tests.methods import config_for, logits
from tests.twins import CLASSES, SIZES, equal, pair, trained
from third_party.models.t5 import T5Config, T5ForConditionalGeneration


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def through_state_dict(model):
    torch.manual_seed(9)
    other = type(model)(model.config)
    assert not other.load_state_dict(model.state_dict()).missing_keys
    return other.eval()


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": through_torch_save,
    "state_dict": through_state_dict,
}


@pytest.mark.parametrize("way", [*COPIES, "deepcopy, checkpointed"])
def test_copies(batch, way):
    for model in pair():
        if "checkpointed" in way:  # transformers adds a hook then that cannot be pickled
            model.gradient_checkpointing_enable()
        copied = COPIES[way.partition(",")[0]](model)
        assert type(copied) is type(model)
        assert torch.equal(logits(copied, batch), logits(model, batch))
        assert copied.lm_head.weight is copied.shared.weight
        expected = trained(model, batch)
        assert equal(trained(copied.eval(), batch), expected)


@pytest.mark.parametrize("case", ["use_TTLoRA", "adapters", "intrinsic_said", "both", "attention_prefix_tuning"])
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
def test_copies_of_an_adapted_model(tiny_config, batch, way, case):
    model = T5ForConditionalGeneration(tiny_config, config_for(case)).eval()
    copied = COPIES[way](model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.5)
    before = logits(model, batch)
    assert not torch.allclose(logits(copied, batch), before)
    assert torch.equal(logits(model, batch), before)


@pytest.fixture
def stored(tmp_path):
    """A directory with a model of transformers in bfloat16, whose wo transformers keeps in float32."""
    pair()[0].bfloat16().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


ARGUMENTS = {
    "torch_dtype": {"torch_dtype": torch.bfloat16},
    "torch_dtype as text": {"torch_dtype": "float16"},
    "dtype": {"dtype": torch.float16},
    "auto": {"dtype": "auto"},
    "auto, older": {"torch_dtype": "auto"},
    "both": {"dtype": torch.float32, "torch_dtype": torch.float16},
    "device_map": {"device_map": "cpu", "dtype": torch.float32},
    "low_cpu_mem_usage": {"low_cpu_mem_usage": True, "dtype": torch.float32},
    "a configuration": {"config": transformers.T5Config(**SIZES, dropout_rate=0.3), "dtype": "auto"},
    "fields": {"dropout_rate": 0.7, "dtype": "auto"},
    "attention": {"attn_implementation": "eager", "dtype": "auto"},
    "local": {"local_files_only": True, "dtype": "auto"},
    "safetensors": {"use_safetensors": True, "dtype": "auto"},
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_of_from_pretrained(stored, batch, name):
    theirs, ours = (cls.from_pretrained(pretrained_model_name_or_path=stored, **ARGUMENTS[name]) for cls in CLASSES)
    assert ours.dtype == theirs.dtype
    assert {key: value.dtype for key, value in ours.state_dict().items()} == {
        key: value.dtype for key, value in theirs.state_dict().items()
    }
    assert torch.equal(logits(ours, batch), logits(theirs, batch))
    assert ours.config.dropout_rate == theirs.config.dropout_rate
    assert ours.config._attn_implementation == theirs.config._attn_implementation
    assert ours.name_or_path == theirs.name_or_path == str(stored)


def test_other_sources_of_weights(stored, tmp_path, batch):
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(stored, dtype=torch.float32)
    expected = logits(theirs, batch)
    found = [
        T5ForConditionalGeneration.from_pretrained(None, config=theirs.config, state_dict=theirs.state_dict()),
        T5ForConditionalGeneration.from_pretrained(tmp_path, subfolder="base"),
        T5ForConditionalGeneration.from_pretrained(stored, config=stored),
    ]
    _, report = T5ForConditionalGeneration.from_pretrained(stored, output_loading_info=True)
    assert report.keys() >= {"missing_keys", "unexpected_keys", "mismatched_keys"}
    for path in (tmp_path / "pickled", tmp_path / "named"):
        path.mkdir()
        (path / "config.json").write_text((stored / "config.json").read_text())
    torch.save(theirs.state_dict(), tmp_path / "pickled/pytorch_model.bin")
    found.append(T5ForConditionalGeneration.from_pretrained(tmp_path / "pickled", use_safetensors=False))
    for choice in ({}, {"use_safetensors": None}):
        with pytest.raises(OSError, match="safetensors"):
            T5ForConditionalGeneration.from_pretrained(tmp_path / "pickled", **choice)
    for model in found:
        assert torch.equal(logits(model, batch), expected)
        assert isinstance(model.config, T5Config)


def test_checkpointing_that_the_configuration_asks_for(stored, batch):
    path = stored / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "gradient_checkpointing": True}))
    theirs, ours = (cls.from_pretrained(stored, dtype=torch.float32) for cls in CLASSES)
    assert ours.is_gradient_checkpointing == theirs.is_gradient_checkpointing
    assert equal(trained(theirs, batch), trained(ours, batch))
    model = T5ForConditionalGeneration.from_pretrained(stored, adapter_config=config_for("use_TTLoRA"))
    assert all(loss.isfinite() for loss in trained(model, batch)[0])


@pytest.mark.parametrize("dtype", [None, torch.bfloat16, "float16"])
def test_from_a_configuration(dtype):
    models = []
    for cls in CLASSES:
        torch.manual_seed(0)
        models.append(cls._from_config(transformers.T5Config(**SIZES), **({"dtype": dtype} if dtype else {})))
    assert equal(*(list(model.state_dict().values()) for model in models))
    adapted = T5ForConditionalGeneration._from_config(T5Config(**SIZES), adapter_config=config_for("use_LoRA"))
    assert adapted.adapter_config.method == "use_LoRA"
    assert T5ForConditionalGeneration(transformers.T5Config(**SIZES), config_for("adapters")).adapter_config.method


def test_round_trip(tmp_path, batch):
    theirs, ours = pair(feed_forward_proj="gated-gelu")
    for model, name in ((theirs, "theirs"), (ours, "ours")):
        model.generation_config.max_length = 33
        model.save_pretrained(tmp_path / name, max_shard_size="30KB")
    contents = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("theirs", "ours")]
    assert contents[0] == contents[1]
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "ours")
    assert torch.equal(logits(again, batch), logits(theirs, batch))
    assert again.generation_config.max_length == 33
