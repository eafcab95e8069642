"""docs/tensor_train_figures.py draws the figures of docs/tensor_train.md and prints its tables."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tensor_train.md"
SCRIPT = "docs/tensor_train_figures.py"
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def rows(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("|")]


def numbers(row: str) -> list[float]:
    return [float(found.replace(",", "")) for found in NUMBER.findall(row)]


@pytest.mark.slow
def test_the_page_shows_what_the_command_draws_and_prints(run_script, tmp_path):
    matplotlib = pytest.importorskip("matplotlib")
    with matplotlib.rc_context():
        status, lines, errors = run_script(SCRIPT, "--out", tmp_path / "figures")
    assert status == 0, errors
    shown = re.findall(r"!\[.*?\]\((.*?)\)", PAGE.read_text())
    drawn = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert drawn == sorted(shown)
    for directory in (tmp_path / "figures", PAGE.parent):
        assert sum((directory / name).stat().st_size for name in shown) < 250_000
    for said, printed in zip(rows(PAGE.read_text().splitlines()), rows(lines), strict=True):
        assert NUMBER.sub("#", said) == NUMBER.sub("#", printed)
        assert numbers(said) == pytest.approx(numbers(printed), rel=0.01, abs=0.02), printed
    assert lines[-1] in " ".join(PAGE.read_text().split())


def test_wrong_arguments_end_in_one_line(run_script, tmp_path):
    (tmp_path / "file").touch()
    for arguments in (["--out", tmp_path / "file"], ["--figures"], ["--out"]):
        status, lines, errors = run_script(SCRIPT, *arguments)
        assert (status, len(lines), len(errors)) == (2, 0, 1)
        assert errors[0].startswith("error: ")
