"""Every shipped configuration: its keys are right, its model can be built, and it trains."""

import json

import pytest
import torch
from safetensors.torch import load_file

from seq2seq.settings import load_settings
from tests.conftest import CONFIGS, ROOT, TINY_RUN
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import count_parameters, modify_model_after_init


def settings_of(config: str):
    return load_settings(str(ROOT / config), [])


@pytest.mark.parametrize("config", CONFIGS)
def test_keys_load_without_a_warning(config):
    settings, warnings = settings_of(config)
    assert not warnings
    assert settings.training.experiment_name


@pytest.mark.parametrize("config", CONFIGS)
def test_builds_on_t5_base(config):
    settings, _ = settings_of(config)
    with torch.device("meta"):
        model = modify_model_after_init(T5ForConditionalGeneration(T5Config.from_shape("t5-base")), settings.adapter)
    counts = count_parameters(model)
    if settings.adapter.freeze_backbone:
        assert counts["trainable"] < 0.03 * counts["backbone"]


@pytest.mark.parametrize("config", [c for c in CONFIGS if "glue" not in c and "pretrain" not in c])
def test_trains_and_comes_back(config, run_main):
    """A run of a few steps: what is trained has changed, and the results are those of what was saved."""
    once = {"save_strategy": "no", "eval_strategy": "no", "load_best_model_at_end": False}
    status, errors, out = run_main(config, **TINY_RUN, **once)
    assert status == 0, errors
    results = json.loads((out / "results.json").read_text())
    assert set(results["splits"]) == {"validation", "test"}
    assert results["splits"]["test"]["scores"]["accuracy"] >= 0
    settings, _ = settings_of(config)
    if settings.adapter.freeze_backbone:
        saved = load_file(out / "adapter_model.safetensors")
        assert sum(t.numel() for t in saved.values()) == results["parameters"]["trainable"]
        assert not (out / "model.safetensors").exists()
        # The sizes may be those of a named model; its name would bring back its weights.
        assert json.loads((out / "adapter_config.json").read_text())["base_model"] is None
    else:
        assert (out / "model.safetensors").exists()
    again, _ = load_settings(str(out / "resolved_config.json"), [])
    assert again.resolved() == json.loads((out / "resolved_config.json").read_text())


def test_a_random_backbone_is_not_named_after_the_model_whose_sizes_it_has(run_main):
    keys = {name: value for name, value in TINY_RUN.items() if name not in ("model_config", "tokenizer_name")}
    keys = {**keys, "max_train_samples": 16, "max_val_samples": 4, "max_test_samples": 4, "tt_rank": 8}
    status, errors, out = run_main("configs/controls/random_backbone.json", **keys)
    assert status == 0, errors
    assert json.loads((out / "adapter_config.json").read_text())["base_model"] is None


def test_t5_base_on_mrpc_from_a_local_copy(run_main, tmp_path):
    """configs/glue/tt_adapter.json as it is, but for the sizes: a local copy of the data in the hub's layout."""
    from datasets import Dataset

    (tmp_path / "glue/mrpc").mkdir(parents=True)
    for split, count in (("train", 12), ("validation", 8)):
        rows = [{"sentence1": f"word {n}", "sentence2": "other", "label": n % 2, "idx": n} for n in range(count)]
        Dataset.from_list(rows).to_parquet(tmp_path / "glue/mrpc" / f"{split}-00000-of-00001.parquet")
    status, errors, out = run_main(
        "configs/glue/tt_adapter.json",
        **{**TINY_RUN, "per_device_train_batch_size": 6, "num_train_epochs": 2},
        data_dir=str(tmp_path / "glue"),
    )
    assert status == 0, errors
    scores = json.loads((out / "results.json").read_text())["splits"]["test"]["scores"]
    assert {"f1", "accuracy"} <= set(scores)
