"""benchmarks/tt_linear.py runs, compares its contestants with each other, and resumes."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def benchmark(*arguments):
    command = [sys.executable, "benchmarks/tt_linear.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_a_small_grid_is_measured_and_resumed(tmp_path):
    grid = ["--shapes", "6x8", "--d", 2, "--ranks", 2, "--rows", 5, "--dtypes", "float32", "--repeats", 3]
    first = benchmark(*grid, "--plans", "--out", tmp_path / "found")
    assert first.returncode == 0, first.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    (record,) = found["cells"].values()
    for group, peer in (("alone", "chain"), ("beside", "frozen")):
        assert {"ours", peer} <= record[group]["forward+backward"]["medians"].keys()
        assert record["plans"][group]["backward"]["regret"] >= 1
    assert record["alone"]["errors"].keys() >= {"chain", "full"}
    assert record["alone"]["saved_bytes"]["ours"] == record["x_bytes"] == 5 * 6 * 4
    again = benchmark(*grid, "--plans", "--resume", "--out", tmp_path / "found")
    assert again.returncode == 0
    assert "[1/1]" in first.stdout
    assert "[1/1]" not in again.stdout


def test_wrong_arguments_end_in_one_line():
    for arguments in (["--shapes", "6"], ["--quick", "--rows", "4"]):
        process = benchmark(*arguments)
        assert process.returncode == 2
        assert process.stderr.startswith("error: ")
        assert process.stderr.count("\n") == 1
