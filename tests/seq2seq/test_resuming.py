"""Interrupted runs go on to the same bits, from whole checkpoints only; runs that diverge do not look finished."""

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from common.errors import ConfigError
from common.ownership import Ownership
from run_seq2seq import main
from seq2seq import pipeline
from seq2seq.checkpoint_files import checkpoints, fault_of, newest_whole
from seq2seq.trainer import AdapterTrainer
from tests.conftest import TINY_RUN
from tests.seq2seq.processes import arguments_of, resealed

CONFIG = "configs/tt_adapter.json"
KEYS = {**TINY_RUN, "num_train_epochs": 3, "overwrite_output_dir": False, "save_total_limit": 5, "logging_steps": 2}
TIMES = ("runtime", "per_second")


def run(out: Path, **keys) -> int:
    return main(arguments_of(CONFIG, **{**KEYS, **keys, "output_dir": str(out)}))


def outcome(out: Path):
    """What a run leaves: its tensors, scores and history, without times."""
    results = json.loads((out / "results.json").read_text())
    history = [{k: v for k, v in line.items() if not k.endswith(TIMES)} for line in results["history"]]
    return load_file(out / "adapter_model.safetensors"), results["splits"], history


def assert_same(left: Path, right: Path) -> None:
    (tensors, *rest), (others, *other_rest) = outcome(left), outcome(right)
    assert tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert rest == other_rest


@pytest.fixture
def at_step(monkeypatch):
    """at_step(n, action): call `action` at the end of step n of every run that follows."""

    def arrange(step: int, action):
        class Act(TrainerCallback):
            def on_step_end(self, args, state, control, **kwargs):
                if state.global_step == step:
                    action()

        class Acting(AdapterTrainer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs, callbacks=[Act()])

        monkeypatch.setattr(pipeline, "AdapterTrainer", Acting)

    return arrange


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The directory of a run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(out) == 0
    return out


@pytest.fixture(scope="module")
def stopped_run(tmp_path_factory) -> Path:
    """The directory of a run that was stopped in its third epoch, with two checkpoints."""
    out = tmp_path_factory.mktemp("stopped") / "out"

    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 7:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "AdapterTrainer", lambda **kwargs: AdapterTrainer(**kwargs, callbacks=[Stop()]))
        assert run(out) == 130
    assert [path.name for path in checkpoints(out)] == ["checkpoint-3", "checkpoint-6"]
    return out


@pytest.fixture
def stopped(stopped_run, tmp_path) -> Path:
    return shutil.copytree(stopped_run, tmp_path / "out")


def test_a_resumed_run_has_the_history_of_one_that_was_not(stopped, whole):
    assert run(stopped) == 0
    assert_same(stopped, whole)


@pytest.mark.parametrize("step", [3, 5, 9])
def test_after_sigterm_a_checkpoint_is_written_and_the_run_goes_on_from_it(step, whole, at_step, tmp_path, capfd):
    with pytest.MonkeyPatch.context() as patch:
        at_step(step, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert run(tmp_path / "out", save_total_limit=1) == 143
        patch.undo()
    assert capfd.readouterr().err.splitlines()[-1] == f"terminated; the same command goes on from checkpoint-{step}"
    assert checkpoints(tmp_path / "out")[-1].name == f"checkpoint-{step}"
    at_step(-1, lambda: None)
    assert run(tmp_path / "out", save_total_limit=1) == 0
    assert_same(tmp_path / "out", whole)


def test_what_is_evaluated_before_training_is_not_evaluated_again(at_step, tmp_path):
    keys = {"eval_on_start": True, "num_train_epochs": 1}
    assert run(tmp_path / "whole", **keys) == 0
    at_step(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert run(tmp_path / "out", **keys) == 143
    assert run(tmp_path / "out", **keys) == 0
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_sigterm_ends_what_has_no_checkpoint_to_write(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(pipeline, "load_texts", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert run(tmp_path / "out") == 143
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("terminated; the same command goes on")
    assert not (tmp_path / "out").exists()


def test_sigterm_waits_20_seconds_for_a_checkpoint_and_no_longer(monkeypatch, at_step, tmp_path, capfd):
    monkeypatch.setattr("common.termination.SECONDS", 0.05)

    def stuck():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(60)

    at_step(4, stuck)
    assert run(tmp_path / "out") == 143
    assert capfd.readouterr().err.splitlines()[-1].startswith("terminated; the same command goes on from the last")
    assert [path.name for path in checkpoints(tmp_path / "out")] == ["checkpoint-3"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"checkpoint-3", "resolved_config.json"}


@pytest.mark.parametrize("steps", ["steps", "epoch"])
def test_a_run_stopped_after_its_last_step_trains_no_further(steps, tmp_path, monkeypatch):
    keys = {"max_steps": 5, "eval_strategy": steps, "save_strategy": steps, "eval_steps": 2, "save_steps": 2}
    assert run(tmp_path / "whole", **keys) == 0
    with monkeypatch.context() as patch:

        def interrupted(*_):
            raise KeyboardInterrupt

        patch.setattr(pipeline, "split_results", interrupted)
        assert run(tmp_path / "out", **keys) == 130
    assert run(tmp_path / "out", **keys) == 0
    assert_same(tmp_path / "out", tmp_path / "whole")


def test_a_checkpoint_at_the_end_of_an_epoch_knows_its_evaluation(at_step, tmp_path):
    """With steps and epochs that coincide, a run killed in the evaluation would go on without it."""
    keys = {"load_best_model_at_end": False, "save_strategy": "steps", "save_steps": 3, "eval_strategy": "epoch"}
    assert run(tmp_path / "out", **keys) == 0
    states = [json.loads((path / "trainer_state.json").read_text()) for path in checkpoints(tmp_path / "out")]
    assert [state["log_history"][-1].get("eval_loss") is not None for state in states] == [True, True, True]


def flip(path: Path, place: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1
    path.write_bytes(content)


def other_step(path: Path) -> None:
    path.write_text(path.read_text().replace('"global_step": 6', '"global_step": 4'))
    resealed(path.parent)


FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "adapter_model.safetensors")
DAMAGES = {
    **{f"{name} deleted": (name, Path.unlink) for name in (*FILES, "run_facts.json", "lab_adapter.json")},
    **{f"{name} changed": (name, flip) for name in (*FILES, "run_facts.json", "lab_adapter.json")},
    "another step": ("trainer_state.json", other_step),
    "no optimizer, new sums": ("optimizer.pt", lambda path: (path.unlink(), resealed(path.parent))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_a_checkpoint_is_noticed(damage, stopped):
    name, act = DAMAGES[damage]
    assert fault_of(stopped / "checkpoint-6") is None
    act(stopped / "checkpoint-6" / name)
    assert fault_of(stopped / "checkpoint-6") is not None
    assert newest_whole(checkpoints(stopped)).name == "checkpoint-3"


@pytest.mark.parametrize("damage", ["optimizer.pt deleted", "adapter_model.safetensors changed"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(damage, stopped, whole, capfd):
    name, act = DAMAGES[damage]
    act(stopped / "checkpoint-6" / name)
    assert run(stopped) == 0
    warning = next(line for line in capfd.readouterr().err.splitlines() if "cannot be used" in line)
    assert f"checkpoint-6 cannot be used: {name}" in warning
    assert warning.endswith("going on from checkpoint-3")
    assert_same(stopped, whole)


def test_with_no_whole_checkpoint_nothing_is_trained_or_lost(stopped, capfd):
    (stopped / "checkpoint-6/optimizer.pt").unlink()
    flip(stopped / "checkpoint-3/rng_state.pth")
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    assert run(stopped) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "checkpoint-6: optimizer.pt, which run_facts.json lists, is missing" in line
    assert "checkpoint-3: rng_state.pth was changed" in line
    assert "resume_from_checkpoint to false" in line
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before
    assert run(stopped, resume_from_checkpoint=False) == 0


def test_a_run_of_a_version_with_fewer_keys_goes_on(stopped, whole):
    file = stopped / "resolved_config.json"
    file.write_text(json.dumps({name: v for name, v in json.loads(file.read_text()).items() if name != "tt_pad"}))
    assert run(stopped, tt_pad=True) == 2
    assert run(stopped) == 0
    assert_same(stopped, whole)


def test_a_file_in_the_place_of_a_checkpoint(stopped, capfd):
    (stopped / "checkpoint-9").write_text("")
    assert run(stopped) == 2
    assert "checkpoint-9 is a file" in capfd.readouterr().err


def test_a_checkpoint_without_checksums_is_used_and_that_is_said(stopped, whole, capfd):
    for checkpoint in checkpoints(stopped):
        facts = json.loads((checkpoint / "run_facts.json").read_text())
        kept = {name: facts[name] for name in ("processes", "data", "seconds")}
        (checkpoint / "run_facts.json").write_text(json.dumps(kept))
        state = json.loads((checkpoint / "trainer_state.json").read_text())
        state["best_model_checkpoint"] = f"somewhere/else/{facts['best_checkpoint']}"
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    assert run(stopped) == 0
    assert [line for line in capfd.readouterr().err.splitlines() if "without checksums" in line]
    tensors, expected = outcome(stopped)[0], outcome(whole)[0]
    assert all(torch.equal(tensors[name], expected[name]) for name in expected)


def test_the_checkpoint_before_is_kept_until_the_next_is_verified(at_step, tmp_path, monkeypatch, capfd):
    replace = os.replace

    def corrupting(source, target):
        replace(source, target)
        if str(target).endswith("checkpoint-6"):
            flip(Path(target, "optimizer.pt"))

    monkeypatch.setattr(os, "replace", corrupting)
    assert run(tmp_path / "out", save_total_limit=1) == 2
    assert "checkpoint-6 was not kept as it was written" in capfd.readouterr().err
    assert checkpoints(tmp_path / "out")[0].name == "checkpoint-3"


@pytest.mark.parametrize(
    ("keys", "what"),
    [({"learning_rate": 1e30}, "weights"), ({"max_grad_norm": 0.0, "learning_rate": 1e18, "optim": "sgd"}, "")],
)
def test_a_run_that_diverges_does_not_look_finished(keys, what, tmp_path, capfd):
    assert run(tmp_path / "out", **keys, warmup_steps=0) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("error: the run diverged: at step ")
    assert what in line
    assert "learning_rate" in line
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left <= {"resolved_config.json", "diverged.json", "checkpoint-3", "checkpoint-6"}
    facts = json.loads((tmp_path / "out/diverged.json").read_text())
    assert facts["experiment_name"] == "tt_adapter"
    assert facts["what"] in line


def test_a_loss_that_is_not_a_number_ends_the_run_in_its_step(tmp_path, monkeypatch, capfd):
    loss = AdapterTrainer.token_loss
    calls = []

    def spoiled(self, *args, **kwargs):
        calls.append(1)
        return loss(self, *args, **kwargs) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(AdapterTrainer, "token_loss", spoiled)
    assert run(tmp_path / "out") == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert "at step 2, " in line
    assert "the loss is nan" in line
    assert not checkpoints(tmp_path / "out")


def test_two_runs_in_one_directory(at_step, tmp_path, whole, capfd):
    seen = []
    at_step(4, lambda: seen.append(run_second()))

    def run_second():
        with pytest.raises(ConfigError, match="to which another run is writing"):
            Ownership(tmp_path / "out").refuse_second()
        return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*.json")}

    assert run(tmp_path / "out") == 0
    assert len(seen) == 1
    assert not (tmp_path / "out/.lock").exists()
    assert_same(tmp_path / "out", whole)


def test_a_lock_that_a_crash_left_does_not_hold(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").write_text("process 1 on nowhere")
    owner = Ownership(tmp_path / "out")
    owner.refuse_second()
    owner.acquire()
    with pytest.raises(ConfigError, match="another run is writing"):
        Ownership(tmp_path / "out").acquire()
    owner.release()
    Ownership(tmp_path / "out").refuse_second()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_directory_that_vanishes_ends_the_run(replaced, at_step, tmp_path, capfd):
    out = tmp_path / "out"

    def vanish():
        out.rename(tmp_path / "elsewhere")
        if replaced:
            out.mkdir()

    at_step(4, vanish)
    assert run(out) == 2
    assert "was removed or replaced while the run was writing to it" in capfd.readouterr().err.splitlines()[-1]
    assert not out.exists() or not list(out.iterdir())


def test_a_full_disk_leaves_what_was_saved_before(at_step, tmp_path, whole, monkeypatch, capfd):
    save, out = torch.save, tmp_path / "out"

    def full(state, path, *args, **kwargs):
        if "checkpoint-6" in str(path):
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        save(state, path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        assert run(out) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert "checkpoint-6 cannot be written" in line
    assert "MiB are free" in line
    assert {path.name for path in out.iterdir()} == {"checkpoint-3", "resolved_config.json"}
    assert run(out) == 0
    assert_same(out, whole)
