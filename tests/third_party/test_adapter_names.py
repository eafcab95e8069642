"""The names of the files of an adapter: ours are not taken for those of peft, nor theirs for ours."""

import json
from functools import partial

import pytest
import torch
from peft import AutoPeftModel, PeftModel
from transformers import AutoModel
from transformers import T5ForConditionalGeneration as PlainT5
from transformers.utils.peft_utils import find_adapter_config_file

from common.checksums import sealed
from common.errors import ConfigError
from seq2seq.models import base_of
from tests.methods import config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration

OURS, OLDER = "lab_adapter.json", "adapter_config.json"


@pytest.fixture
def model(loaded_t5):
    model = loaded_t5()
    model.attach_adapters(config_for("use_LoRA"))
    return moved(model).eval()


@pytest.fixture
def older(model, tmp_path):
    """An adapter as version 0.1.0 wrote it, with checksums."""
    model.save_adapter(tmp_path / "older")
    (tmp_path / "older" / OURS).rename(tmp_path / "older" / OLDER)
    return tmp_path / "older"


def test_libraries_are_not_misled(model, shallow_t5, tmp_path):
    model.save_adapter(tmp_path / "a")
    assert find_adapter_config_file(str(tmp_path / "a")) is None
    plain = PlainT5.from_pretrained(shallow_t5)
    for load in (partial(PeftModel.from_pretrained, plain), AutoPeftModel.from_pretrained):
        with pytest.raises(ValueError, match="Can't find 'adapter_config.json'"):
            load(str(tmp_path / "a"))
    with pytest.raises((OSError, ValueError), match="config.json|model_type"):
        AutoModel.from_pretrained(str(tmp_path / "a"))


def test_the_older_name(model, older, loaded_t5, shallow_t5, batch):
    expected = logits(model, batch)
    assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(older).eval(), batch), expected)
    fresh = loaded_t5()
    fresh.attach_adapters(config_for("use_LoRA"))
    fresh.load_adapter(older)
    assert torch.equal(logits(fresh.eval(), batch), expected)
    assert base_of(str(older)) == str(shallow_t5)
    with pytest.raises(ConfigError, match="contains an adapter or a run"):
        model.merge_and_export(older)
    content = json.loads((older / OLDER).read_text())
    (older / OLDER).write_text(json.dumps({**content, "tasks": ["b"]}))
    with pytest.raises(ConfigError, match="adapter_config.json was changed"):
        T5ForConditionalGeneration.from_pretrained(older)


def test_saving_over_the_older_name(model, older, batch):
    moved(model, 5)
    model.save_adapter(older)
    assert not (older / OLDER).exists()
    assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(older).eval(), batch), logits(model, batch))


def test_a_description_of_peft_stays(model, older, tmp_path):
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / OLDER).write_text('{"peft_type": "LORA"}')
    with pytest.raises(ConfigError, match="contains an adapter of peft; save to another directory"):
        model.save_adapter(tmp_path / "peft")
    assert [path.name for path in (tmp_path / "peft").iterdir()] == [OLDER]
    with pytest.raises(ConfigError, match="adapter_model.safetensors cannot be read"):
        model.load_adapter(tmp_path / "peft")
    model.save_adapter(tmp_path / "both")
    (tmp_path / "both" / OLDER).write_text(json.dumps(sealed({"peft_type": "LORA"}, {})))
    for use in (model.load_adapter, model.save_adapter, T5ForConditionalGeneration.from_pretrained):
        with pytest.raises(ConfigError, match="keep each in a directory of its own"):
            use(tmp_path / "both")
