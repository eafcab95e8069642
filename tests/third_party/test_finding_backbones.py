"""A saved adapter finds its backbone from any directory, and says where it looked if it does not."""

import json
import shutil

import pytest
import torch

from common.errors import ConfigError
from seq2seq.models import base_of
from tests.methods import config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration


@pytest.fixture
def place(tiny_t5, tmp_path, monkeypatch):
    """The current directory: a backbone `mybase`, and an adapter that was trained on "./mybase"."""
    directory = tmp_path / "place"
    shutil.copytree(tiny_t5, directory / "mybase")
    monkeypatch.chdir(directory)
    config = config_for("use_LoRA")
    moved(T5ForConditionalGeneration.from_pretrained("./mybase", adapter_config=config)).save_adapter("adapter")
    return directory


def other_backbone(directory, config):
    torch.manual_seed(5)
    T5ForConditionalGeneration(config).save_pretrained(directory)


def test_from_another_directory(place, tmp_path, batch, monkeypatch, tiny_config):
    expected = logits(T5ForConditionalGeneration.from_pretrained("adapter"), batch)
    description = json.loads((place / "adapter/lab_adapter.json").read_text())
    assert (description["base_model"], description["base_path"]) == ("./mybase", str(place / "mybase"))
    monkeypatch.chdir(tmp_path)
    model = T5ForConditionalGeneration.from_pretrained(place / "adapter")
    assert torch.equal(logits(model, batch), expected)
    assert base_of(str(place / "adapter")) == model.name_or_path == str(place / "mybase")
    model.save_adapter(tmp_path / "again")
    assert torch.equal(logits(T5ForConditionalGeneration.from_pretrained(tmp_path / "again"), batch), expected)
    other_backbone(tmp_path / "mybase", tiny_config)  # of the same name, where the user is now
    model = T5ForConditionalGeneration.from_pretrained(place / "adapter")
    assert torch.equal(logits(model, batch), expected)
    assert base_of(str(place / "adapter")) == str(place / "mybase")


def test_moved_together(place, tmp_path, batch, monkeypatch):
    expected = logits(T5ForConditionalGeneration.from_pretrained("adapter"), batch)
    monkeypatch.chdir(tmp_path)
    (place / "mybase").rename(place / "adapter/mybase")
    place.rename(tmp_path / "elsewhere")
    model = T5ForConditionalGeneration.from_pretrained("elsewhere/adapter")
    assert torch.equal(logits(model, batch), expected)


def test_the_directory_changed_between_loading_and_saving(place, tmp_path, monkeypatch):
    model = T5ForConditionalGeneration.from_pretrained("mybase", adapter_config=config_for("use_LoRA"))
    monkeypatch.chdir(tmp_path)
    model.save_adapter("late")
    assert T5ForConditionalGeneration.from_pretrained("late").name_or_path == str(place / "mybase")


def test_nowhere(place, tmp_path, monkeypatch, tiny_config):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(place / "mybase")
    for load in (T5ForConditionalGeneration.from_pretrained, base_of):
        with pytest.raises(
            ConfigError, match="'./mybase' of the adapter in .* was not found; looked at: ./mybase"
        ) as error:
            load(str(place / "adapter"))
        assert f"{place / 'mybase'} (not a directory)" in str(error.value)
        assert f"{place / 'adapter'}/./mybase (not a directory)" in str(error.value)
    other_backbone(tmp_path / "mybase", tiny_config)
    (place / "mybase").mkdir()
    with pytest.raises(ConfigError, match="whose weights differ.*has no config.json") as error:
        T5ForConditionalGeneration.from_pretrained(place / "adapter")
    assert "\n" not in str(error.value)


def test_a_subfolder_of_a_backbone(place, tiny_t5, batch):
    shutil.copytree(tiny_t5, "store/base")
    config = config_for("use_LoRA")
    model = T5ForConditionalGeneration.from_pretrained("store", subfolder="base", adapter_config=config)
    model.save_adapter("store/adapter")
    again = T5ForConditionalGeneration.from_pretrained("store", subfolder="adapter")
    assert torch.equal(logits(again, batch), logits(model.eval(), batch))


def test_the_card_shows_nothing_of_this_machine(place):
    card = (place / "adapter/README.md").read_text()
    assert "Trained on mybase: " in card
    assert str(place) not in card
    assert "base_model:" not in card
    T5ForConditionalGeneration.from_pretrained("t5-nano", adapter_config=config_for("ia3")).save_adapter("nano")
    assert "base_model: t5-nano\n" in (place / "nano/README.md").read_text()
    assert json.loads((place / "nano/lab_adapter.json").read_text())["base_path"] is None
