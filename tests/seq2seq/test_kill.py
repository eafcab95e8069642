"""Kill -9 at 20 moments of a run, and start it again: it ends with the adapter of a run that nobody killed."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import ROOT, TINY_RUN

MOMENTS = 20
CONFIG = "configs/tt_adapter.json"
KEYS = {**TINY_RUN, "num_train_epochs": 3, "overwrite_output_dir": False, "save_total_limit": 1}


def run(out: Path, kill_at: int | None, log: Path) -> None:
    """In a process of its own: run, and die before the file operation or optimiser step number `kill_at`."""
    from transformers import TrainerCallback

    import run_seq2seq
    from seq2seq import pipeline
    from seq2seq.trainer import AdapterTrainer

    events = []

    def happened(event: str) -> None:
        if len(events) == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        events.append(event)

    class Steps(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            happened(f"step {state.global_step}")

    class Watched(AdapterTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs, callbacks=[Steps()])

    def audit(name: str, arguments: tuple) -> None:
        writes = name in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "open")
        if writes and arguments and isinstance(arguments[0], str | os.PathLike) and str(out) in str(arguments[0]):
            happened(f"{name} {arguments[0]}")

    pipeline.AdapterTrainer = Watched
    sys.addaudithook(audit)
    os.chdir(ROOT)
    arguments = [part for key, value in KEYS.items() for part in (f"--{key}", json.dumps(value))]
    status = run_seq2seq.main([CONFIG, *arguments, "--output_dir", str(out)])
    log.write_text(json.dumps(events))
    os._exit(status)


@pytest.fixture(scope="module")
def in_a_process():
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["seq2seq.pipeline", "tests.conftest"])

    def call(out: Path, kill_at: int | None = None) -> int:
        process = context.Process(target=run, args=(out, kill_at, out.with_suffix(".log")))
        process.start()
        process.join()
        return process.exitcode

    return call


def trained(out: Path) -> list[dict[str, torch.Tensor]]:
    """The tensors of the best model, which may be that of the first epoch, and of the last checkpoint."""
    last = max(out.glob("checkpoint-*"), key=lambda path: int(path.name[len("checkpoint-") :]))
    return [load_file(directory / "adapter_model.safetensors") for directory in (out, last)]


def test_twenty_moments(in_a_process, tmp_path):
    whole = tmp_path / "whole"
    assert in_a_process(whole) == 0
    events = json.loads(whole.with_suffix(".log").read_text())
    expected, last = trained(whole)
    first_save = next(k for k, event in enumerate(events) if "checkpoint-" in event)
    steps = [k for k, event in enumerate(events) if event.startswith("step")]
    in_saves = [k for k, event in enumerate(events) if ".unfinished" in event or event.startswith("os.rename")]
    assert len(events) > 2 * MOMENTS
    assert steps[0] < first_save
    spread = {round(k * (len(events) - 1) / (MOMENTS - 1)) for k in range(MOMENTS)}
    moments = sorted(spread | {steps[0], in_saves[0], in_saves[len(in_saves) // 2], in_saves[-1]})
    for kill_at in moments:
        out = tmp_path / f"killed-{kill_at}"
        assert in_a_process(out, kill_at) == -signal.SIGKILL, events[kill_at]
        assert not (out / "results.json").exists(), events[kill_at]
        assert in_a_process(out) == 0, events[kill_at]
        for got, wanted in zip(trained(out), (expected, last), strict=True):
            assert got.keys() == wanted.keys()
            assert all(torch.equal(got[name], wanted[name]) for name in wanted), events[kill_at]
        splits = [json.loads((each / "results.json").read_text())["splits"] for each in (whole, out)]
        assert splits[0] == splits[1], events[kill_at]
    assert len(moments) >= MOMENTS
