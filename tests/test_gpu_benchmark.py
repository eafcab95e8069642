"""benchmarks/gpu.py runs, here on a CPU in tiny sizes, and notes what fails."""

import importlib
import json
import os
import runpy
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.seq2seq.processes import exit_codes

SCRIPT = ROOT / "benchmarks" / "gpu.py"
PARTS = ("checks", "calibration", "layers", "steps", "generation", "input", "expressivity")


def command(arguments: list[str], cache: str, without: str) -> int:
    """The exit status of the benchmark, in a process without threads, as it forks. without: a package to hide."""
    os.environ["XDG_CACHE_HOME"] = cache
    if without:
        sys.modules[without] = None
    sys.argv = [str(SCRIPT), *arguments]
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    except SystemExit as stop:
        return stop.code
    return -1


@pytest.fixture
def run(tmp_path):
    """run("--quick" .., without="peft") -> (exit status, lines printed, the report or None, the page or None)."""

    def call(*arguments: str, without: str = ""):
        out, log = tmp_path / "found" / "gpu", tmp_path / "log"
        (status,) = exit_codes(command, [*arguments, "--out", str(out)], str(tmp_path / "cache"), without, log=log)
        written = [out.with_suffix(suffix) for suffix in (".json", ".md")]
        report, page = (path.read_text() if path.exists() else None for path in written)
        return status, log.read_text().splitlines(), report and json.loads(report), page

    return call


def test_every_part_runs_on_a_cpu_in_tiny_sizes(run, tmp_path):
    status, lines, report, page = run("--device", "cpu", "--quick")
    assert status == 0, lines
    assert tuple(report["parts"]) == PARTS
    for name, part in report["parts"].items():
        assert part["tables"], name
        assert part["seconds"] < part["limit"]
        assert f"## {name}" in page
        for title, rows in part["tables"].items():
            assert f"**{title}**" in page
            assert all(row.keys() == rows[0].keys() for row in rows)
    assert report["machine"]["TF32"] == "does not apply to a CPU"
    engine, merging, t5 = report["parts"]["checks"]["tables"].values()
    assert {row["dtype"] for row in engine} == {"float32", "bfloat16", "float16"}
    kinds = {
        f"{kind}, {place}" for kind in ("auto", "chain", "full", "paired", "hybrid") for place in ("alone", "beside")
    }
    assert {row["plans"] for row in engine} == kinds
    assert all(row["cases"] and not row["failed"] for row in (*engine, *merging, *t5))
    assert all(0 < row["largest error"] <= row["allowed"] for row in (*engine, *merging, *t5))
    (layers,) = report["parts"]["layers"]["tables"].values()
    contestants = {row["branch"] for row in layers}
    ours, plain = ("ours, skewed", "ours, square", "ours, d3"), ("two GEMMs, skewed", "two GEMMs, square")
    assert contestants == {"frozen", "peft LoRA r1", "peft LoRA r2", *ours, *plain}
    (fed,) = report["parts"]["input"]["tables"].values()
    assert 0 < fed[0]["device busy"] < 2
    assert list((tmp_path / "cache" / "t3nsor").iterdir())  # the calibration of later parts


def test_what_needs_peft_says_so_and_the_rest_is_measured(run):
    status, _, report, page = run("--device", "cpu", "--quick", "--only", "steps", "layers", without="peft")
    assert status == 1
    assert list(report["parts"]) == ["layers", "steps"]  # by importance
    (failure,) = report["parts"]["steps"]["failures"]
    assert failure.startswith("peft cannot be imported")
    assert f"**Failed:** {failure}" in page
    (layers,) = report["parts"]["layers"]["tables"].values()
    by_name = {row["branch"]: row["ms"] for row in layers}
    assert "peft" in by_name["peft LoRA r2"]
    assert by_name["ours, skewed"] > 0


def test_cuda_asked_for_without_it_ends_in_one_line(run):
    status, lines, report, _ = run()
    assert (status, report) == (2, None)
    assert lines == ["error: --device is cuda, but torch finds no CUDA device; --device cpu --quick tries the parts"]


def test_wrong_arguments_end_in_one_line(run_script):
    for wrong in (["--only", "everything"], ["--device", "tpu"], ["--out", "there/"], ["--quik"]):
        status, lines, errors = run_script(SCRIPT, *wrong)
        assert (status, len(lines), len(errors)) == (2, 0, 1)
        assert errors[0].startswith("error: ")


def part_that(ends: str):
    yield "table", {"row": 1}
    if ends == "raises":
        raise ValueError("the second\nrow")
    if ends == "hangs":
        time.sleep(60)
    if ends == "dies":
        os._exit(3)


def write_ends(path: str) -> int:
    """Write how parts end that do not do so by themselves."""
    sys.path.insert(0, str(SCRIPT.parent))
    rows_of = importlib.import_module("gpu_process").rows_of
    found = {ends: rows_of(part_that, 2, ends) for ends in ("by itself", "raises", "hangs", "dies")}
    Path(path).write_text(json.dumps(found))
    return 0


def test_a_part_that_fails_hangs_or_dies_keeps_its_rows(tmp_path):
    assert exit_codes(write_ends, str(tmp_path / "found"), log=tmp_path / "log") == [0]
    found = json.loads((tmp_path / "found").read_text())
    assert all(rows == [["table", {"row": 1}]] for rows, _ in found.values())
    failures = {ends: failure for ends, (_, failure) in found.items()}
    assert failures == {
        "by itself": None,
        "raises": "ValueError: the second",
        "hangs": "stopped after 2 s",
        "dies": "its process ended with status 3",
    }


def test_wrong_numbers_are_counted_and_the_first_is_shown(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT), str(SCRIPT.parent), *sys.path])
    checks = importlib.import_module("gpu_checks")
    tally = checks.Tally(1e-4)
    for name, error in (("good", 1e-5), ("bad", 2e-4), ("worse", float("nan"))):
        tally.add(name, lambda error=error: error)
    tally.add("none", lambda: 1 / 0)
    row = tally.row(dtype="float32")
    assert (row["cases"], row["failed"], row["first failure"]) == (4, 3, "bad: error 2.0e-04")
    layer = checks.Layer(((4, 6), (6, 6)), False, True, 20, "cpu", "float32")
    assert layer.error("full") < 1e-5
    layer.wanted = [tensor * 1.001 for tensor in layer.wanted]
    assert layer.error("full") > 1e-4
