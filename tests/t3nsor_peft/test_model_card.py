"""What the README.md of a saved adapter says."""

import pytest
from huggingface_hub import ModelCard
from peft import PeftConfig, get_peft_model

import t3nsor_peft
from tests.t3nsor_peft.models import ARCHITECTURES

IMPORT = "import t3nsor_peft  # registers"


@pytest.mark.parametrize("name", t3nsor_peft.METHODS)
def test_a_saved_adapter_says_what_loading_needs(name, tmp_path):
    config = t3nsor_peft.METHODS[name][0](r=2, target_modules=["q_proj"])
    model = get_peft_model(ARCHITECTURES["qwen2"].model(), config)
    for _ in range(2):  # the second time peft updates the card of the first
        model.save_pretrained(tmp_path)
        text = (tmp_path / "README.md").read_text()
        assert text.count(IMPORT) == 1
        assert f"KeyError: '{name}'" in text
        assert text.index("How to Get Started") < text.index(IMPORT) < text.index("## Training Details")
        assert ModelCard.load(tmp_path / "README.md").data.library_name == "peft"


def test_an_adapter_of_another_name_has_a_card_of_its_own(tmp_path):
    model = get_peft_model(ARCHITECTURES["qwen2"].model(), t3nsor_peft.TTLoraConfig(target_modules=["q_proj"]), "mine")
    model.save_pretrained(tmp_path)
    assert IMPORT in (tmp_path / "mine" / "README.md").read_text()


def test_a_card_in_the_users_own_words_is_kept(tmp_path):
    (tmp_path / "README.md").write_text("# Größe\n\nA card.\n", encoding="utf-8")
    config = t3nsor_peft.TTLoraConfig(target_modules=["q_proj"])
    config.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("# Größe\n\nA card.\n\n```python\nimport t3nsor_peft")
    config.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
    assert PeftConfig.from_pretrained(tmp_path) == config
