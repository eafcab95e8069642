"""Adapters by their hub id: from a local cache in the hub's layout, and uploaded as far as the hub's own functions."""

import json
import shutil

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from common.errors import ConfigError
from tests.methods import config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.adapter_checkpoint import save_scores
from utils import modify_model_after_init


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty local cache, and no network. Returns a function that puts a directory into it as a repository."""
    cache = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(cache))

    def put(repo_id, directory, revision="main"):
        place = cache / f"models--{repo_id.replace('/', '--')}"
        commit = {"main": "a" * 40, "v2": "b" * 40}[revision]
        shutil.copytree(directory, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)

    return put


def adapted(base, method="use_LoRA", seed=1):
    return moved(modify_model_after_init(T5ForConditionalGeneration.from_pretrained(base), config_for(method)), seed)


@pytest.mark.parametrize("peft", [False, True])
def test_a_hub_id_of_an_adapter(peft, hub, tiny_t5, tmp_path, batch):
    hub("me/base", tiny_t5)
    model = adapted("me/base").eval()
    assert model.backbone_path is None
    (model.export_peft if peft else model.save_adapter)(tmp_path / "x")
    hub("me/x", tmp_path / "x")
    found = T5ForConditionalGeneration.from_pretrained("me/x").eval()
    assert torch.equal(logits(found, batch), logits(model, batch))
    assert found.name_or_path == "me/base"
    assert "base_model: me/base\n" in (tmp_path / "x" / "README.md").read_text()
    other = adapted("me/base", seed=4)
    other.load_adapter("me/x")
    assert torch.equal(logits(other.eval(), batch), logits(model, batch))


def test_a_revision_is_that_of_the_adapter(hub, tiny_t5, tmp_path, batch):
    hub("me/base", tiny_t5)
    for revision, seed in (("main", 1), ("v2", 2)):
        model = adapted("me/base", seed=seed)
        model.save_adapter(tmp_path / revision)
        hub("me/x", tmp_path / revision, revision)
    found = T5ForConditionalGeneration.from_pretrained("me/x", revision="v2").eval()
    assert torch.equal(logits(found, batch), logits(model.eval(), batch))


def test_no_such_repository(hub, tiny_t5):
    with pytest.raises(OSError, match="couldn't find them in the cached files"):
        T5ForConditionalGeneration.from_pretrained("me/nothing")
    with pytest.raises(ConfigError, match="me/nothing"):
        adapted(tiny_t5).load_adapter("me/nothing")


@pytest.mark.parametrize("peft", [False, True])
def test_uploading(peft, tiny_t5, monkeypatch, batch, tmp_path):
    model, asked = adapted(tiny_t5).eval(), {}

    def upload_folder(*, repo_id, folder_path, **options):
        asked.update(repo_id=repo_id, **options)
        shutil.copytree(folder_path, tmp_path / "uploaded")

    monkeypatch.setattr(huggingface_hub, "create_repo", lambda repo_id, **options: f"https://hub/{repo_id}")
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload_folder)
    assert model.push_to_hub("me/x", peft=peft, token="t", commit_message="first") == "https://hub/me/x"
    assert asked == {"repo_id": "me/x", "token": "t", "commit_message": "first"}
    files = {path.name for path in (tmp_path / "uploaded").iterdir()}
    assert files == {"README.md", "adapter_model.safetensors", "adapter_config.json" if peft else "lab_adapter.json"}
    assert 'from_pretrained("me/x")' in (card := (tmp_path / "uploaded/README.md").read_text()) or '"me/x")' in card
    assert "THIS DIRECTORY" not in card
    assert torch.equal(
        logits(T5ForConditionalGeneration.from_pretrained(tmp_path / "uploaded"), batch), logits(model, batch)
    )


def test_uploading_without_a_hub(tiny_t5, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model = adapted(tiny_t5)
    with pytest.raises(ConfigError, match="me/x was not uploaded: ") as error:
        model.push_to_hub("me/x")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="me/x/y was not uploaded: "):
        model.push_to_hub("me/x/y")
    with pytest.raises(ConfigError, match="has no equal in peft"):
        adapted(tiny_t5, "bitfit").push_to_hub("me/x", peft=True)


def test_scores_stay_with_their_weights(tiny_t5, tmp_path):
    model = adapted(tiny_t5)
    model.save_adapter(tmp_path / "a")
    save_scores(model, tmp_path / "a", [{"data": "d", "split": "test", "metric": "f1", "rows": 1234, "score": 81.257}])
    row = "| d | test | 1,234 | f1 | 81.26 |"
    assert row in (tmp_path / "a/README.md").read_text()
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "a")
    again.save_adapter(tmp_path / "b")
    again.export_peft(tmp_path / "c")
    for copy in ("b", "c"):
        assert row in (tmp_path / copy / "README.md").read_text()
    moved(again, 3).save_adapter(tmp_path / "d")
    assert "| test |" not in (tmp_path / "d/README.md").read_text()
    assert not (tmp_path / "d/scores.json").exists()
    other = moved(T5ForConditionalGeneration.from_pretrained(tmp_path / "a"), 3)
    other.export_peft(tmp_path / "f")
    again = T5ForConditionalGeneration.from_pretrained(tmp_path / "a")
    again.merge_and_export(tmp_path / "g")
    assert not any((tmp_path / name / "scores.json").exists() for name in "fg")
    content = json.loads((tmp_path / "a/scores.json").read_text())
    (tmp_path / "a/scores.json").write_text(json.dumps({**content, "scores": [{"data": 3}]}))
    T5ForConditionalGeneration.from_pretrained(tmp_path / "a").save_adapter(tmp_path / "e")
    assert "| test |" not in (tmp_path / "e/README.md").read_text()
