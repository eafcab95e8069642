"""benchmarks/robustness.py: every campaign runs, nothing ends wrong, and what would be wrong is seen."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = "benchmarks/robustness.py"


@pytest.fixture
def attacks(monkeypatch):
    """The modules of benchmarks/attacks, by name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from attacks import outcome, processes, reference

    yield {"outcome": outcome, "processes": processes, "reference": reference}
    for name in [name for name in sys.modules if name.split(".")[0] == "attacks"]:
        del sys.modules[name]


@pytest.mark.slow
def test_a_few_trials_of_every_campaign_and_none_twice(run_script, tmp_path):
    arguments = ["--quick", "--output_dir", str(tmp_path / "out")]
    first = subprocess.run([sys.executable, SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stdout + first.stderr
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in first.stdout.splitlines() if line[:1] == "|"
    ]
    assert rows[0] == ["attack", "tried", "refused in one line", "identical", "wrong", "traceback"]
    assert len(rows) == 2 + 8
    for attack, *counts in rows[2:]:
        tried, refused, identical, wrong, crashed = map(int, counts)
        assert 0 < tried == refused + identical, attack
        assert wrong == crashed == 0, attack
    trials = (tmp_path / "out/trials.jsonl").read_text()
    assert trials.count("\n") == sum(int(row[1]) for row in rows[2:])
    (tmp_path / "out/trials.jsonl").write_text(trials + '\n{"campaign": "dry", "tri')  # killed while it wrote
    status, lines, _ = run_script(SCRIPT, *arguments)  # in this process, which may: nothing is forked
    assert (status, lines) == (0, first.stdout.splitlines())
    assert (tmp_path / "out/trials.jsonl").read_text().startswith(trials)
    assert len((tmp_path / "out/trials.jsonl").read_text()) < len(trials) + 40, "nothing was tried again"


@pytest.mark.parametrize(
    ("status", "errors", "verdict"),
    [
        (0, [], None),
        (0, ["warning: a key is not read"], None),
        (2, ["error: tt_rank is 0"], "refused"),
        (2, ["warning: a key is not read", "error: tt_rank is 0"], "refused"),
        (1, ["error: the loss is nan in step 3"], "refused"),
        (2, [], "traceback"),
        (2, ["error: one", "and a second line"], "traceback"),
        (2, ["Traceback (most recent call last):", "  File ..", "KeyError: 1"], "traceback"),
        (1, ["error: this is a fault of the program: KeyError: 1"], "traceback"),
        (0, ["Traceback (most recent call last):", "ValueError"], "traceback"),
        (-11, [], "traceback"),
        (None, [], "traceback"),
    ],
)
def test_how_an_end_is_judged(attacks, status, errors, verdict):
    failure = attacks["processes"].Ended(status, errors).failure()
    assert (failure and failure.verdict) == verdict


def test_processes_end_as_their_target_does(attacks, tmp_path):
    """In an interpreter of its own, as forked processes may not inherit the threads of this one."""
    code = f"""
import os, signal, sys, time
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
from pathlib import Path
from attacks import processes
def say(status):
    print("warning: said", file=sys.stderr)
    if status == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    if status == 7:
        raise KeyError("x")
    sys.exit(status)
for status in (0, 2, 7, 9):
    ended = processes.run(say, status, log=Path({str(tmp_path / "log")!r}))
    print(ended.status, len(ended.errors) > 1)
processes.PATIENCE = 0.2
print(processes.Process(time.sleep, 60, log=Path({str(tmp_path / "log")!r})).wait(0.2).status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ["0 False", "2 False", "1 True", f"{-signal.SIGKILL} False", "None"]
    assert done.stdout.splitlines() == expected


def finished_run(directory, value: float, score: float) -> None:
    """Write what a finished run leaves, as far as it is compared."""
    import torch
    from safetensors.torch import save_file

    for place in (directory, directory / "checkpoint-2"):
        place.mkdir(parents=True)
        save_file({"core": torch.tensor([value])}, place / "adapter_model.safetensors")
    results = {"splits": {"test": {"accuracy": score}}, "parameters": {"trainable": 1}}
    results["history"] = [{"loss": 1.0, "train_runtime": value}]
    (directory / "results.json").write_text(json.dumps(results))


def test_a_run_that_differs_is_seen(attacks, tmp_path):
    compared = attacks["reference"].compared
    finished_run(tmp_path / "whole", 1.0, 50.0)
    finished_run(tmp_path / "same", 1.0, 50.0)
    finished_run(tmp_path / "other bits", 1.0000001, 50.0)
    finished_run(tmp_path / "other scores", 1.0, 50.1)
    verdicts = {name: compared(tmp_path / name, tmp_path, name) for name in ("same", "other bits", "other scores")}
    assert {name: found.verdict for name, found in verdicts.items()} == {
        "same": "identical",
        "other bits": "wrong",
        "other scores": "wrong",
    }
    assert "adapter" in verdicts["other bits"].what
    assert "scores" in verdicts["other scores"].what
    os.remove(tmp_path / "same/results.json")
    assert compared(tmp_path / "same", tmp_path, "no results").verdict == "wrong"


def test_wrong_arguments_end_in_one_line(run_script):
    for arguments in (["--only", "nothing"], ["--trials", 0], ["--output_dir", "/dev/null/x", "--quick"]):
        status, lines, errors = run_script(SCRIPT, *arguments)
        assert (status, len(lines), len(errors)) == (2, 0, 1)
        assert errors[0].startswith("error: ")
