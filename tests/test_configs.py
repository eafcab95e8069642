"""Every shipped configuration: its keys are right, and it trains. test_parameter_counts.py builds each on T5-base."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from seq2seq import pipeline
from seq2seq.settings import load_settings
from seq2seq.trainer import AdapterTrainer
from seq2seq.unread import unread_keys
from tests.conftest import CONFIGS, ROOT, TINY_RUN
from tests.methods import FLAGS
from third_party.models.t5 import T5ForConditionalGeneration


def settings_of(config: str):
    return load_settings(str(ROOT / config), [])


@pytest.mark.parametrize("config", CONFIGS)
def test_keys_load_without_a_warning(config):
    settings, notes = settings_of(config)
    assert not notes.lines()
    assert settings.training.experiment_name


@pytest.mark.parametrize("config", [config for config in CONFIGS if "pretrain" in config])
def test_all_keys_are_read(config):
    """For the other configurations, test_dry_run.py shows it."""
    settings, _ = settings_of(config)
    if str(settings.model.model_name_or_path).startswith("outputs/"):  # what another configuration writes
        settings.model.model_name_or_path = "t5-nano"
    assert not unread_keys(settings)


class Watched(AdapterTrainer):
    """Keeps the model, and what its tensors were before training."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        Watched.model = self.model
        Watched.start = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}


# A pretrained backbone for one configuration of each site where methods attach (tt_adapter_auto fits no smaller one);
# the others train a tiny one.
ON_T5_NANO = ["baseline", "tt_adapter_auto", "tt_lora_svd", "tt_layer_norm", "bitfit", "prompt_tuning_tokens_init"]
ON_T5_NANO += ["prefix_tuning", "intrinsic_said"]
FEW_ROWS = {
    "max_train_samples": 12,
    "num_train_epochs": 1,
    "per_device_train_batch_size": 4,  # a parameter multiplied by zero cores gets no gradient in the first step
    "max_val_samples": 4,
    "max_test_samples": 4,
    "disable_tqdm": True,
}


def test_every_site_has_a_configuration_on_t5_nano():
    sites = {site for name in ON_T5_NANO for site in settings_of(f"configs/{name}.json")[0].adapter.methods}
    assert sites == {flag.metadata["site"] for flag in FLAGS.values()}


@pytest.mark.parametrize("config", [c for c in CONFIGS if "pretrain" not in c and "random_backbone" not in c])
def test_trains_and_comes_back(config, run_main, tokenizer, tiny_backbone, monkeypatch):
    """A run of a few steps: what is trained has changed, all else has not, and what was saved gives the same again."""
    monkeypatch.setattr(pipeline, "AdapterTrainer", Watched)
    several = isinstance(settings_of(config)[0].data.task_name, list)
    tasks = ["vader-amazon", "vader-nyt"] if several else "vader-amazon"
    backbone = "t5-nano" if Path(config).stem in ON_T5_NANO else str(tiny_backbone)
    status, errors, out = run_main(config, **FEW_ROWS, model_name_or_path=backbone, task_name=tasks)
    assert status == 0, errors
    results = json.loads((out / "results.json").read_text())
    assert set(results["splits"]) == {"validation", "test"}
    model = Watched.model
    trained = {name for name, parameter in model.named_parameters(remove_duplicate=False) if parameter.requires_grad}
    for name, tensor in model.state_dict().items():
        if ".k.added_bias." not in name:  # the softmax does not see a bias that all keys have
            assert torch.equal(tensor, Watched.start[name]) != (name in trained), name
    assert results["parameters"]["trainable"] == sum(p.numel() for p in model.parameters() if p.requires_grad)
    if settings_of(config)[0].adapter.freeze_backbone:
        saved = load_file(out / "adapter_model.safetensors")
        assert sum(tensor.numel() for tensor in saved.values()) >= results["parameters"]["trainable"]
        assert not (out / "model.safetensors").exists()
    again = T5ForConditionalGeneration.from_pretrained(out)
    batch = tokenizer(["sentence: a fine film", "sentence: dull"], return_tensors="pt", padding=True)
    task = "vader-nyt" if several else None
    assert torch.equal(*(each.generate(**batch, max_new_tokens=4, task=task) for each in (model.eval(), again)))
    with torch.no_grad():
        assert torch.equal(*(each(**batch, labels=batch["input_ids"], task=task).logits for each in (model, again)))
    resolved = json.loads((out / "resolved_config.json").read_text())
    assert load_settings(str(out / "resolved_config.json"), [])[0].resolved() == resolved


def test_a_random_backbone_is_not_named_after_the_model_whose_sizes_it_has(run_main):
    keys = {name: value for name, value in TINY_RUN.items() if name not in ("model_config", "tokenizer_name")}
    keys = {**keys, "max_train_samples": 16, "max_val_samples": 4, "max_test_samples": 4, "tt_rank": 8}
    status, errors, out = run_main("configs/controls/random_backbone.json", **keys)
    assert status == 0, errors
    assert json.loads((out / "lab_adapter.json").read_text())["base_model"] is None


def test_t5_base_on_mrpc_from_a_local_copy(run_main, tmp_path):
    """configs/glue/tt_adapter.json as it is, but for the sizes: a local copy of the data in the hub's layout."""
    from datasets import Dataset

    (tmp_path / "glue/mrpc").mkdir(parents=True)
    for split, count in (("train", 12), ("validation", 8)):
        rows = [{"sentence1": f"word {n}", "sentence2": "other", "label": n % 2, "idx": n} for n in range(count)]
        Dataset.from_list(rows).to_parquet(tmp_path / "glue/mrpc" / f"{split}-00000-of-00001.parquet")
    status, errors, out = run_main(
        "configs/glue/tt_adapter.json",
        **{**TINY_RUN, "task_name": "mrpc", "per_device_train_batch_size": 6, "num_train_epochs": 2},
        data_dir=str(tmp_path / "glue"),
    )
    assert status == 0, errors
    scores = json.loads((out / "results.json").read_text())["splits"]["test"]["tasks"]["mrpc"]["scores"]
    assert {"f1", "accuracy"} <= set(scores)
