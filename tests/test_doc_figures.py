"""docs/tensor_train_figures.py draws the figures of docs/tensor_train.md, and prints the tables that stand there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tensor_train.md"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def draw(*arguments):
    command = [sys.executable, ROOT / "docs" / "tensor_train_figures.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def numbers(row: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(row)]


def test_the_page_shows_what_the_command_draws_and_prints(tmp_path):
    pytest.importorskip("matplotlib")
    process = draw("--out", tmp_path / "figures")
    assert process.returncode == 0, process.stderr
    shown = re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text())
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert drawn == sorted(shown)
    for directory in (tmp_path / "figures", PAGE.parent):
        assert sum((directory / name).stat().st_size for name in shown) < 250_000
    for said, printed in zip(rows(PAGE.read_text()), rows(process.stdout), strict=True):
        assert NUMBER.sub("#", said) == NUMBER.sub("#", printed)
        assert numbers(said) == pytest.approx(numbers(printed), rel=0.01, abs=0.02), printed
    sentence = process.stdout.splitlines()[-1]
    assert sentence in " ".join(PAGE.read_text().split())


def test_wrong_arguments_end_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    for arguments in (["--out", tmp_path / "file"], ["--figures"], ["--out"]):
        process = draw(*arguments)
        assert process.returncode == 2
        assert process.stderr.startswith("error: ")
        assert process.stderr.count("\n") == 1
        assert not process.stdout
