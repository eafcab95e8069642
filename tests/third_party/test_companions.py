"""The tokenizer, and how texts were made of data, travel with what is saved, also from Python."""

import pytest
from transformers import AutoTokenizer
from transformers import T5ForConditionalGeneration as PlainT5

from adapters import AdapterConfig
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.companions import DATA, companions_in


@pytest.fixture
def adapted(tiny_backbone):
    return T5ForConditionalGeneration.from_pretrained(tiny_backbone, adapter_config=AdapterConfig(use_LoRA=True))


def test_the_tokenizer_of_the_backbone_is_beside_what_is_saved(adapted, tiny_backbone, tmp_path):
    adapted.save_adapter(tmp_path / "adapter")
    adapted.merge_and_export(tmp_path / "merged")
    expected = AutoTokenizer.from_pretrained(tiny_backbone).get_vocab()
    for directory in ("adapter", "merged"):
        assert AutoTokenizer.from_pretrained(tmp_path / directory).get_vocab() == expected
        assert not (tmp_path / directory / DATA).exists()
    PlainT5.from_pretrained(tmp_path / "merged")


def test_what_lies_beside_an_adapter_goes_on_with_it(adapted, tmp_path):
    adapted.companions = {DATA: b"{}", "tokenizer.json": b"its own"}
    adapted.save_adapter(tmp_path / "first")
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path / "first")
    loaded.save_adapter(tmp_path / "second")
    loaded.merge_and_export(tmp_path / "merged")
    for directory in ("second", "merged"):
        assert companions_in(tmp_path / directory) == adapted.companions


def test_new_adapters_do_not_say_how_the_data_of_their_backbone_were_read(adapted, tmp_path):
    adapted.companions = {DATA: b"{}", "tokenizer.json": b"its own"}
    adapted.merge_and_export(tmp_path / "merged")
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "merged", adapter_config=AdapterConfig(use_LoRA=True))
    again.save_adapter(tmp_path / "again")
    assert companions_in(tmp_path / "again") == {"tokenizer.json": b"its own"}


def test_a_model_without_a_tokenizer_is_saved_without_one(tiny_config, tmp_path):
    model = T5ForConditionalGeneration(tiny_config, AdapterConfig(use_LoRA=True))
    model.save_adapter(tmp_path)
    assert companions_in(tmp_path) == {}
