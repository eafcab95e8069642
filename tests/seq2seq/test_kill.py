"""Kill -9 at some moments of a run, and start it again: it ends with the adapter of a run that nobody killed.

benchmarks/robustness.py tries a hundred.
"""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TINY_RUN
from tests.seq2seq.processes import arguments_of, exit_codes

MOMENTS = 4
CONFIG = "configs/tt_adapter.json"
OWN_DATA = {"task_name": "file", "source_template": "{text}", "labels": ["0", "1"]}
KEYS = {**TINY_RUN, **OWN_DATA, "num_train_epochs": 2, "overwrite_output_dir": False, "save_total_limit": 1}


def run(arguments: list[str], out: Path, kill_at: int | None) -> int:
    """Run, and die before the file operation or optimiser step number `kill_at`."""
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
        path = str(arguments[0]) if arguments and isinstance(arguments[0], str | os.PathLike) else ""
        if writes and str(out) in path and not path.endswith(".lock"):  # which outlives the results for a moment
            happened(f"{name} {arguments[0]}")

    pipeline.AdapterTrainer = Watched
    sys.addaudithook(audit)
    status = run_seq2seq.main(arguments)
    out.with_suffix(".json").write_text(json.dumps(events))
    return status


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, the last one last."""
    return sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name[len("checkpoint-") :]))


def trained(out: Path) -> list[dict[str, torch.Tensor]]:
    """The tensors of the best model, which may be that of the first epoch, and of the last checkpoint."""
    return [load_file(directory / "adapter_model.safetensors") for directory in (out, checkpoints(out)[-1])]


@pytest.mark.slow
def test_killed_and_started_again(tmp_path):
    (tmp_path / "own.csv").write_text("text,label\n" + "".join(f"film {n},{n % 2}\n" for n in range(120)))

    def status_of(out: Path, kill_at: int | None = None, **keys) -> int:
        keys = {**KEYS, "train_file": str(tmp_path / "own.csv"), "output_dir": str(out), **keys}
        (status,) = exit_codes(run, arguments_of(CONFIG, **keys), out, kill_at, log=out.with_suffix(".log"))
        return status

    whole = tmp_path / "whole"
    assert status_of(whole) == 0, whole.with_suffix(".log").read_text()[-2000:]
    events = json.loads(whole.with_suffix(".json").read_text())
    expected, last = trained(whole)
    first_save = next(k for k, event in enumerate(events) if "checkpoint-" in event)
    steps = [k for k, event in enumerate(events) if event.startswith("step")]
    in_saves = [k for k, event in enumerate(events) if ".unfinished" in event or event.startswith("os.rename")]
    assert len(events) > 2 * MOMENTS
    assert steps[0] < first_save
    spread = {round(k * (len(events) - 1) / (MOMENTS - 1)) for k in range(MOMENTS)}
    moments = sorted(spread | {steps[0], in_saves[0], in_saves[len(in_saves) // 2], in_saves[-1]})
    for kill_at in moments:
        out, event = tmp_path / f"killed-{kill_at}", events[kill_at]
        assert status_of(out, kill_at) == -signal.SIGKILL, event
        assert not (out / "results.json").exists(), event
        # An unfinished run is resumed even if the file says overwrite.
        assert status_of(out, overwrite_output_dir=kill_at % 2 == 0) == 0, event
        for got, wanted in zip(trained(out), (expected, last), strict=True):
            assert got.keys() == wanted.keys()
            assert all(torch.equal(got[name], wanted[name]) for name in wanted), event
        splits = [json.loads((each / "results.json").read_text())["splits"] for each in (whole, out)]
        assert splits[0] == splits[1], event
        assert [path.name for path in checkpoints(out)] == [path.name for path in checkpoints(whole)], event
    assert len(moments) >= MOMENTS
