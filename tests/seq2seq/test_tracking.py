import json

import pytest

from seq2seq.settings import load_settings
from seq2seq.tracking import FakeWandb, TrackingCallback, main_attributes, start_tracking
from tests.conftest import ROOT, TINY_RUN

COUNTS = {"trainable": 10, "total": 110, "backbone": 100}


def test_without_wandb_a_stand_in_takes_the_calls():
    settings, _ = load_settings(str(ROOT / "configs/tt_adapter.json"), [])
    run = start_tracking(settings, COUNTS)
    assert isinstance(run, FakeWandb)
    assert run.log({"loss": 1.0}, step=1) is None
    assert run.finish() is None


def test_the_run_is_described_by_its_main_attributes():
    settings, _ = load_settings(str(ROOT / "configs/tt_adapter.json"), ["--tt_rank", "5", "--seed", "7"])
    attributes = main_attributes(settings, COUNTS)
    assert attributes["method"] == "tensor_train_adapters"
    assert attributes["tt_rank"] == 5
    assert attributes["seed"] == 7
    assert attributes["trainable_parameters"] == 10
    assert "tt_d" not in attributes
    assert len(attributes) < 25


def test_all_that_is_logged_reaches_the_run():
    from types import SimpleNamespace

    class Recorder(FakeWandb):
        calls = []

        def log(self, values, step):
            self.calls.append((values, step))

    callback = TrackingCallback(Recorder())
    for main_process in (True, False):
        state = SimpleNamespace(is_world_process_zero=main_process, global_step=3)
        callback.on_log(None, state, None, logs={"eval_loss": 1.5})
    assert Recorder.calls == [({"eval_loss": 1.5}, 3)]


def test_wandb_offline_leaves_a_run_directory(run_main, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    status, errors, out = run_main("configs/tt_adapter.json", **TINY_RUN, log_to_wandb=True)
    assert status == 0, errors
    runs = list((out / "wandb").glob("offline-run-*"))
    assert len(runs) == 1
    assert list(runs[0].glob("*.wandb"))
    assert json.loads((out / "results.json").read_text())
