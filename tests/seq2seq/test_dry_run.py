"""--dry_run says before training what the run then trains, and touches no weights and no data."""

import json

import pytest

import seq2seq.data.vader as vader
from t3nsor import parameter_count
from tests.conftest import CONFIGS, TINY_RUN
from third_party.models.t5 import T5ForConditionalGeneration


@pytest.fixture
def nothing_is_loaded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("weights or data were loaded")

    monkeypatch.setattr(vader, "read_set", refuse)
    monkeypatch.setattr(T5ForConditionalGeneration, "from_pretrained", refuse)


@pytest.mark.parametrize("config", [config for config in CONFIGS if "pretrain" not in config])
def test_every_configuration(config, run_main, nothing_is_loaded, capfd):
    status, errors, out = run_main(config, dry_run=True)
    assert (status, errors) == (0, [])  # it would say that nothing reads a key
    content = json.loads((out / "dry_run.json").read_text())
    assert sum(row["trainable"] for row in content["components"]) == content["trainable_parameters"]
    assert sum(row["total"] for row in content["components"]) == content["total_parameters"]
    assert content["configuration"]["output_dir"] == str(out)
    assert [path.name for path in out.iterdir()] == ["dry_run.json"]


def test_it_predicts_the_run_and_does_not_stand_in_its_way(run_main, capfd):
    keys = {**TINY_RUN, "overwrite_output_dir": False}
    assert run_main("configs/tt_lora.json", **keys, dry_run=True)[0] == 0
    status, errors, out = run_main("configs/tt_lora.json", **keys, print_num_parameters=True)
    assert status == 0, errors
    said, counted = (json.loads((out / name).read_text()) for name in ("dry_run.json", "results.json"))
    assert said["trainable_parameters"] == counted["parameters"]["trainable"]
    assert said["total_parameters"] == counted["parameters"]["total"]
    before = (out / "results.json").read_bytes()
    assert run_main("configs/tt_lora.json", **keys, dry_run=True)[0] == 0
    assert (out / "results.json").read_bytes() == before


def test_the_tensor_trains_and_how_they_are_multiplied(run_main, capfd):
    _, _, out = run_main("configs/tt_lora.json", dry_run=True, model_name_or_path="t5-base")
    trains = json.loads((out / "dry_run.json").read_text())["tensor_trains"]
    assert [(row["part"], row["count"]) for row in trains] == [("wi branch", 24), ("wo branch", 24)]
    assert trains[0]["shape"] == [[24, 32], [48, 64]]
    assert trains[0]["ranks"] == [1, 8, 1]
    assert trains[0]["parameters"] == 24 * parameter_count(((24, 32), (48, 64)), 8)
    assert all(row["forward"] and row["backward"] for row in trains)


@pytest.mark.parametrize("config", ["tt_basis", "tt_lora_svd", "tt_adapter_shared_cores", "tt_lora_separate"])
def test_the_tensor_trains_add_up(config, run_main, capfd):
    _, _, out = run_main(f"configs/{config}.json", dry_run=True)
    content = json.loads((out / "dry_run.json").read_text())
    trains, rows = content["tensor_trains"], {row["name"]: row for row in content["components"]}
    coefficients = 6 * 2 * 64 if config == "tt_basis" else 0
    assert sum(row["parameters"] for row in trains) + coefficients == rows["adapters"]["total"]
    assert all(row["trainable"] == 0 for row in trains if row["part"].endswith(("start", "basis")))


def test_published_sizes_need_no_hub(run_main, capfd):
    for name in ("t5-base", "google-t5/t5-base"):
        _, errors, out = run_main("configs/adapters.json", dry_run=True, model_name_or_path=name)
        assert json.loads((out / "dry_run.json").read_text())["trainable_parameters"] == 1_855_104, errors
