"""Saving and loading: adapters beside their backbone's name, and plain T5s with everything folded in."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from adapters import METHODS
from common.errors import ConfigError
from tests.methods import CASES, adapted, config_for, moved, relative
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.parameters import count_parameters
from utils import modify_model_after_init


@pytest.mark.parametrize("case", CASES)
def test_checkpoint_round_trip(loaded_t5, batch, tmp_path, case):
    torch.manual_seed(0)
    config = config_for(case, unfreeze_layer_norms="intrinsic" not in case)
    model = modify_model_after_init(loaded_t5(), config)
    moved(model).eval().save_adapter(tmp_path / "adapter")
    torch.manual_seed(7)  # random cores, rules and projections come from the file
    fresh = modify_model_after_init(loaded_t5(), config)
    with torch.no_grad():  # with gradients torch picks its kernels by what is frozen, and the last bits differ
        expected = model(**batch).logits
        assert not torch.allclose(fresh(**batch).logits, expected)
        fresh.load_adapter(tmp_path / "adapter")
        whole = T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter")
        for other in (fresh, whole):
            assert torch.equal(other(**batch).logits, expected)
    texts = [each.generate(batch["input_ids"], max_new_tokens=2, num_beams=2) for each in (model, whole)]
    assert torch.equal(*texts)
    assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 80_000
    card = (tmp_path / "adapter/README.md").read_text()
    assert f"# {config.method}" in card
    assert f"{count_parameters(model)['trainable']:,} parameters" in card


def test_an_adapter_is_not_put_on_another_backbone(tiny_config, tmp_path):
    for seed in (0, 1):
        torch.manual_seed(seed)
        T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / f"base{seed}")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base0")
    model = modify_model_after_init(base, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path / "adapter")
    half = T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    shutil.rmtree(tmp_path / "base0")
    (tmp_path / "base1").rename(tmp_path / "base0")
    with pytest.raises(ConfigError, match="whose weights differ from this model's"):
        T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter")


def test_a_write_that_is_interrupted_leaves_the_old_adapter(tiny_config, tmp_path, monkeypatch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path)
    before = (tmp_path / "adapter_model.safetensors").read_bytes()

    def interrupted(path, data):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        moved(model).save_adapter(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == before
    assert not list(tmp_path.glob(".unfinished*"))


def test_what_was_loaded_is_saved_again_byte_by_byte(tiny_config, tmp_path):
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / "base")
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapter_config=config_for("use_TTLoRA svd"))
    moved(model).save_adapter(tmp_path / "one")
    T5ForConditionalGeneration.from_pretrained(tmp_path / "one").save_adapter(tmp_path / "two")
    for name in ("adapter_model.safetensors", "README.md", "lab_adapter.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_slightly_other_backbone_is_another(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path)
    with torch.no_grad():
        model.decoder.block[1].layer[0].SelfAttention.q.weight.mul_(1.001)
    with pytest.raises(ConfigError, match="whose weights differ"):
        model.load_adapter(tmp_path)


def test_keys_that_change_no_tensor_may_differ(tiny_config, tmp_path):
    adapted(tiny_config, config_for("use_TTLoRA")).save_adapter(tmp_path)
    other = adapted(
        tiny_config, config_for("use_TTLoRA", merge_at_eval=False, lora_dropout=0.1, merge_dtype="bfloat16")
    )
    other.load_adapter(tmp_path)
    wrong = adapted(tiny_config, config_for("use_TTLoRA", lora_alpha=3.0))
    with pytest.raises(ConfigError, match="lora_alpha is None, in the model 3.0"):
        wrong.load_adapter(tmp_path)


def test_a_readme_of_the_users_stays(tiny_config, tmp_path):
    (tmp_path / "README.md").write_text("my notes")
    adapted(tiny_config, config_for("use_TTLoRA")).save_adapter(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my notes"


def test_wrong_descriptions_and_places(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path / "a")
    path = tmp_path / "a/lab_adapter.json"
    good = json.loads(path.read_text())
    for content in ("\xff".encode("latin-1"), b"{}", json.dumps({**good, "tensors": None}).encode()):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="lab_adapter.json"):
            model.load_adapter(tmp_path / "a")
    (tmp_path / "file").write_text("")
    for write in (model.save_adapter, model.merge_and_export):
        with pytest.raises(ConfigError, match="file"):
            write(tmp_path / "file")


def test_export_does_not_replace_the_backbone(tiny_config, tmp_path):
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / "base")
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapter_config=config_for("use_TTLoRA"))
    with pytest.raises(ConfigError, match="contains the backbone"):
        model.merge_and_export(tmp_path / "base")


FOLDABLE = [
    case for case, (name, _) in CASES.items() if METHODS[name].foldable and case not in ("both", "use_TTLoRA activated")
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", FOLDABLE)
def test_export_is_a_plain_t5(loaded_t5, batch, tmp_path, case, dtype, capfd):
    torch.manual_seed(0)
    model = moved(modify_model_after_init(loaded_t5(dtype), config_for(case))).eval()
    model.merge_and_export(tmp_path / "plain")
    capfd.readouterr()
    stock, report = transformers.T5ForConditionalGeneration.from_pretrained(
        tmp_path / "plain", dtype=dtype, output_loading_info=True
    )
    assert not any(report.values()), report
    printed = capfd.readouterr()
    assert "warn" not in (printed.out + printed.err).lower()
    ours = T5ForConditionalGeneration.from_pretrained(tmp_path / "plain", dtype=dtype)
    with torch.no_grad():
        expected = model(**batch).logits
        for other in (stock, ours):
            assert relative(other(**batch).logits, expected) < (1e-6 if dtype == torch.float32 else 2e-2)
    if dtype == torch.float32:
        texts = [each.generate(batch["input_ids"], max_new_tokens=3) for each in (model, stock, ours)]
        assert torch.equal(texts[0], texts[1])
        assert torch.equal(texts[0], texts[2])
    assert json.loads((tmp_path / "plain/config.json").read_text())["architectures"] == ["T5ForConditionalGeneration"]


@pytest.mark.parametrize("case", [case for case in CASES if case not in FOLDABLE])
def test_what_a_plain_t5_cannot_hold_is_not_exported(shallow_config, tmp_path, case):
    model = adapted(shallow_config, config_for(case))
    with pytest.raises(ConfigError, match="cannot be folded into"):
        model.merge_and_export(tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_export_does_not_write_into_an_adapter(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path)
    with pytest.raises(ConfigError, match="contains an adapter"):
        model.merge_and_export(tmp_path)
