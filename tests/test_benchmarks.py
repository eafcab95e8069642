"""benchmarks/tt_linear.py runs, compares its contestants and resumes; others refuse what they cannot measure."""

import json
import subprocess
import sys
from functools import partial

import pytest

from seq2seq.sweeps.local import LocalWorkers
from tests.conftest import ROOT

SCRIPT = "benchmarks/tt_linear.py"


@pytest.mark.slow
def test_a_small_grid_is_measured_and_resumed(run_script, tmp_path, monkeypatch):
    """The first time in a process of its own, which starts again with another memory allocator."""
    grid = ["--shapes", "512x512", "--d", 2, "--ranks", 8, "--rows", 128, "--dtypes", "float32", "--repeats", 3]
    arguments = [*map(str, grid), "--plans", "--out", str(tmp_path / "found")]
    first = subprocess.run([sys.executable, SCRIPT, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert first.returncode == 0, first.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    (record,) = found["cells"].values()
    for group, peer in (("alone", "chain"), ("beside", "frozen")):
        assert {"ours", peer} <= record[group]["forward+backward"]["medians"].keys()
        assert record["plans"][group]["backward"]["regret"] >= 1
    assert record["alone"]["errors"].keys() >= {"chain", "full"}
    assert record["alone"]["saved_bytes"]["ours"] == record["x_bytes"] == 128 * 512 * 4
    assert "[1/1]" in first.stdout
    assert first.stdout.startswith("starting again with ")
    for setting in first.stdout.splitlines()[0].split()[3:]:
        monkeypatch.setenv(*setting.split("="))
    status, lines, errors = run_script(SCRIPT, *arguments, "--resume")
    assert status == 0, errors
    assert not [line for line in lines if "[1/1]" in line]


def test_the_figure_has_a_panel_for_the_skewed_shape_beside_those_for_numbers_of_cores(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from tt_linear_figure import draw

    layer = {"in_features": 8, "out_features": 8, "dtype": "float32", "rank": 2, "rows": 4}
    alone = {mode: {"ratios": [0.5]} for mode in ("forward", "forward+backward")}
    records = [{"cell": {**layer, "d": d}, "alone": alone} for d in ("skewed", 2, 3)]
    draw({"machine": {"threads": 1, "device": "cpu", "cpu": "a CPU"}}, records, tmp_path / "found.png")
    assert (tmp_path / "found.png").stat().st_size > 10_000


def test_wrong_arguments_end_in_one_line(run_script):
    for arguments in (["--shapes", "6"], ["--quick", "--rows", "4"]):
        status, lines, errors = run_script(SCRIPT, *arguments)
        assert (status, len(lines), len(errors)) == (2, 0, 1)
        assert errors[0].startswith("error: ")


def test_the_controls_need_a_task_with_an_accuracy(run_script):
    status, _, errors = run_script("benchmarks/controls.py", "--task_name", "vader-movie-rating")
    assert (status, len(errors)) == (2, 1)
    assert errors[0] == "error: --task_name is 'vader-movie-rating'; it must be a task that is measured by its accuracy"


def test_a_probe_needs_a_model(run_script):
    status, _, errors = run_script("benchmarks/probe.py", "/no/such/model")
    assert (status, len(errors)) == (2, 1)
    assert errors[0].startswith("error: model_name_or_path is '/no/such/model'")


@pytest.mark.parametrize(
    ("script", "argument"),
    [
        ("vocabulary", "-8"),
        ("vocabulary", "many"),
        ("controls", "--seeds=0"),
        ("copying", "--rows=-1"),
        ("probe", "--x"),
    ],
)
def test_wrong_arguments_are_one_line_and_nothing_is_computed(run_script, script, argument):
    status, lines, errors = run_script(f"benchmarks/{script}.py", argument)
    assert (status, len(lines), len(errors)) == (2, 0, 1)
    assert errors[0].startswith("error: ")


@pytest.mark.slow
def test_cells_of_a_sweep_are_timed(tmp_path):
    from benchmarks.sweep_throughput import measured, parse

    given = parse(["--rows", "16", "--methods", "1"])
    found = measured(partial(LocalWorkers, 1, 1, 0, False), given, str(tmp_path))
    assert len(found.overheads) == 2
    assert 0 < sum(found.overheads) < found.seconds
