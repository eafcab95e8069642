"""The pages of a sweep, from records whose truth is known."""

import io
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from report import main
from tests.results.written_cells import TRUTH, written_cells


def test_files(cells, tmp_path, capsys):
    assert main(["--results", str(cells), "--output_dir", str(tmp_path / "docs")]) == 0
    printed = capsys.readouterr().out
    text = (tmp_path / "docs" / "results.md").read_text()
    assert "TT against LoRA at equal parameters: 1 better, 0 worse, 1 undecided" in printed
    assert "1 better, 0 worse" in text
    assert "[../cells.jsonl](../cells.jsonl)" in text
    assert (tmp_path / "docs" / "results.png").read_bytes().startswith(b"\x89PNG")
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") - line.count("\\|") >= 3
    page = (tmp_path / "docs" / "results.html").read_text()
    drawings = re.findall(r"<svg role=.*?</svg>", page, flags=re.DOTALL)
    assert len(drawings) >= 3
    for drawing in drawings:
        ET.fromstring(drawing.replace("xlink:href", "href"))
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for name in TRUTH:
        assert name in page
        assert name in text


def test_the_same_records_give_the_same_files(cells, tmp_path):
    for name in ("a", "b"):
        assert main(["--results", str(cells), "--output_dir", str(tmp_path / name)]) == 0
    for file in ("results.html", "results.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_grids_are_drawn(tmp_path):
    grid = {
        f"TT ({r}, {d})": ("TT", 100 * r * d, 70.0 + r, {"tt_rank": r, "tt_d": d}) for r in (1, 2, 4) for d in (2, 3)
    }
    rows = {f"LoRA {n}": ("LoRA", 100 * n, 71.0, {"low_resource": n}) for n in (100, 1000)}
    cells = written_cells(tmp_path / "c.jsonl", grid | rows)
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    page = (tmp_path / "results.html").read_text()
    assert "TT: tt_rank and tt_d" in page
    same = {f"TT ({r})": ("TT", 100 * r, 70.0 + r, {"tt_rank": r, "tt_d": 3}) for r in (1, 2)}
    null = {f"LoRA {n}": ("LoRA", 9, 71.0, {"low_resource": n}) for n in (100, 1000, None)}
    for truth, words in ((same, "Score against tt_rank"), (null, "Score against training rows")):
        cells = written_cells(tmp_path / "c.jsonl", truth)
        assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
        assert words in (tmp_path / "results.html").read_text()
    assert "Score against training rows" in page


@pytest.mark.parametrize(
    "truth",
    [
        {"words": ("others", 50, 90.0)},
        {"nothing": ("others", 0, 80.0)},
        {"silent": ("TT", 16, 40.0), "mute": ("TT", 9, 41.0)},
    ],
)
def test_without_a_frontier(tmp_path, truth):
    """Classifiers only, runs that train nothing or learn nothing: a table without a picture."""
    cells = written_cells(tmp_path / "c.jsonl", truth, without_backbone={"words"})
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    assert not (tmp_path / "results.png").exists()
    assert "results.png" not in (tmp_path / "results.md").read_text()


def test_many_groups_and_odd_places(tmp_path, monkeypatch):
    """Paths with spaces are links and commands all the same, and a legend has a line for a name that begins with _."""
    monkeypatch.chdir(tmp_path)
    cells = written_cells(tmp_path / "a (b).jsonl", {f"row {n}": (f"_group {n}", n + 1, 70.0 + n) for n in range(30)})
    assert main(["--results", str(cells), "--output_dir", "my docs"]) == 0
    text = Path("my docs/results.md").read_text()
    assert "[../a (b).jsonl](<../a (b).jsonl>)" in text
    assert f"--results '{cells}' --output_dir 'my docs'`" in text
    assert "30 rows, 3 tasks, seeds 1, 2, 3, 270 reported runs, scored on test (vader-movie: 500 rows, vader" in text


def test_a_terminal_that_knows_ascii_only(cells, tmp_path, monkeypatch):
    printed = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", printed)
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    assert rb"words (50 parameters) scores highest, 89.93 \xb1 0.41" in printed.buffer.getvalue()


def test_odd_names_and_unknown_majority(tmp_path):
    name = "a|b\n<i>*c*[red]"
    cells = written_cells(tmp_path / "c.jsonl", {name: ("a|group", 100, 70.0), "other": ("a|group", 200, 71.0)})
    text = (
        cells.read_text()
        .replace("vader-nyt", "vader|nyt")
        .replace('"majority":{"test":55.0}', '"majority":{"test":null}')
    )
    cells.write_text(text)
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    text = (tmp_path / "results.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert "<i>" not in text
    assert len({line.replace("\\|", "").count("|") for line in table[:4]}) == 1
