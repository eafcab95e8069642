"""Values chosen by ASHA on a local Ray cluster."""

import pytest

from seq2seq.sweeps.records import read_records
from tests.sweeps.small import KEYS, SWEEP

pytestmark = pytest.mark.slow
ray = pytest.importorskip("ray")
LORA = SWEEP["configurations"][1]
SPACE = {"learning_rate": [0.03, 1e-9]}  # the first can learn, and is evaluated first


@pytest.fixture
def niceness(monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")


def test_search(sweep, tmp_path, niceness):
    choose = {"space": SPACE, "metric": "loss"}
    keys = {**KEYS, "num_train_epochs": 2.5}  # three evaluations
    status, printed, _ = sweep("--search", "--workers", "1", configurations=[LORA], keys=keys, choose=choose, seeds=[1])
    assert status == 0
    _, records = read_records(tmp_path / "out" / "cells.jsonl")
    tried = [record for record in records if record["stage"] == "choose"]
    assert ["stopped" in record for record in tried] == [False, True], printed
    assert tried[1]["stopped"]["evaluations"] == 1
    assert not any("test" in record.get("scores", {}) for record in tried)
    (reported,) = (record for record in records if record["stage"] == "report")
    assert reported["chosen"] == {"learning_rate": 0.03}
    status, printed, _ = sweep("--search", "--workers", "1", configurations=[LORA], keys=keys, choose=choose, seeds=[1])
    assert status == 0
    assert "0 of them" in printed[-1]


def test_nothing_to_stop_by(sweep, niceness):
    keys = {**KEYS, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    status, _, errors = sweep("--search", "--workers", "1", configurations=[LORA], keys=keys)
    assert status == 2
    assert "not evaluated in training" in errors[-1]
    assert not ray.is_initialized()
