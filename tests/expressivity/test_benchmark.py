"""benchmarks/expressivity.py runs and prints what it fitted."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "expressivity.py"


def benchmark(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=300)


def test_it_prints_a_row_per_case():
    cases = ("n_diagonal", "transformer_4")
    process = benchmark("--cases", *cases, "--epochs", "1", "--targets", "2", "--rounds", "2", "--threads", "1")
    assert process.returncode == 0, process.stderr
    first, header, *rows = process.stdout.splitlines()
    assert "1 threads" in first
    assert header.split()[:3] == ["case", "weights", "together"]
    assert [row.split()[:3] for row in rows] == [["n_diagonal", "100", "10"], ["transformer_4", "212", "6"]]
    for row in rows:
        together, alone, *ratios = (float(cell.replace(",", "")) for cell in row.split()[3:] if cell != "to")
        assert together > 0 < alone
        assert min(ratios) >= 0


def test_wrong_arguments_end_in_one_line():
    for wrong in (["--rounds", "0"], ["--cases", "n_diagnal"], ["--round_s", "2"]):
        process = benchmark(*wrong)
        assert process.returncode == 2
        assert process.stderr.startswith("error: ")
        assert process.stderr.count("\n") == 1
