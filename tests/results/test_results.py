"""The page of a sweep, from records whose truth is known."""

import io
import json
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from report import main
from seq2seq.results.comparisons import at_equal_size, behind, frontier
from seq2seq.results.conclusions import best, limits
from seq2seq.results.reading import read_measured
from seq2seq.results.tables import frontier_places
from tests.results.written_cells import written_cells

TRUTH = {  # name: group, parameters, score
    "small": ("others", 100, 70.0),
    "LoRA 1": ("LoRA", 1000, 75.0),
    "LoRA 2": ("LoRA", 10_000, 78.0),
    "TT 1": ("TT", 1100, 80.0),
    "TT 2": ("TT", 9000, 78.0),
    "TT 3": ("TT", 100_000, 79.0),
    "words": ("others", 50, 90.0),
}


@pytest.fixture
def cells(tmp_path) -> Path:
    return written_cells(tmp_path / "cells.jsonl", TRUTH, compare={"TT": ["LoRA"]}, without_backbone={"words"})


def test_truth_is_found(cells):
    measured = read_measured(cells, "test")
    rows = {row.name: row for row in measured.rows}
    assert [row.name for row in frontier(measured.rows)] == ["small", "LoRA 1", "TT 1"] or [
        row.name for row in frontier(measured.rows)
    ] == ["small", "LoRA 1", "TT 1", "TT 3"]
    assert {"LoRA 2", "TT 2"} <= behind(measured)
    found, alone = at_equal_size(measured, "TT", "LoRA")
    verdicts = {each.row.name: (each.other.name, each.verdict) for each in found}
    assert verdicts == {"TT 1": ("LoRA 1", "better"), "TT 2": ("LoRA 2", "undecided")}
    assert [row.name for row in alone] == ["TT 3"]
    for name, (_, _, score) in TRUTH.items():
        average = rows[name].average
        assert abs(average.mean - score) < 1.5
        assert average.low < average.mean < average.high


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


def test_files_of_windows_editors(cells, tmp_path):
    """Which begin with a byte order mark and end lines with two characters."""
    expected = read_measured(cells, "test")
    cells.write_bytes(b"\xef\xbb\xbf" + cells.read_bytes().replace(b"\n", b"\r\n"))
    assert read_measured(cells, "test").rows == expected.rows


def test_the_same_records_give_the_same_files(cells, tmp_path):
    for name in ("a", "b"):
        assert main(["--results", str(cells), "--output_dir", str(tmp_path / name)]) == 0
    for file in ("results.html", "results.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_no_winner_where_the_interval_holds_zero(tmp_path):
    """Rows that differ by their seeds alone: none is better, and the sentence says so."""
    same = {f"row {n}": ("TT" if n % 2 else "LoRA", 1000 + n, 80.0) for n in range(8)}
    measured = read_measured(written_cells(tmp_path / "c.jsonl", same, compare={"TT": ["LoRA"]}), "test")
    found, _ = at_equal_size(measured, "TT", "LoRA")
    assert {each.verdict for each in found} == {"undecided"}
    assert not behind(measured)
    assert "The seeds tell none of the 8 rows apart from the best." in best(measured)


def test_rows_below_the_most_frequent_answer_are_said(tmp_path):
    truth = {"good": ("LoRA", 1000, 80.0), "silent": ("TT", 16, 40.0)}
    measured = read_measured(written_cells(tmp_path / "c.jsonl", truth), "test")
    assert [
        line for line in limits(measured) if line.startswith("Below always giving the most frequent answer, by mean sc")
    ]
    assert [row.name for row in frontier(measured.rows)] == ["good"]


def test_one_seed_decides_nothing(cells, tmp_path, capsys):
    lines = [json.loads(line) for line in cells.read_text().splitlines()]
    cells.write_text("".join(json.dumps(line) + "\n" for line in lines if line.get("seed", 1) == 1))
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "with one seed nothing says whether the others are worse" in printed
    assert "With one seed nothing says which other rows are behind it" in printed
    assert "TT against LoRA at equal parameters: 0 better, 0 worse, 2 undecided" in printed
    assert "±" not in (tmp_path / "results.md").read_text()


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


def test_partial_and_failed_cells_are_said(tmp_path, capsys):
    cells = written_cells(tmp_path / "c.jsonl", TRUTH)
    lines = cells.read_text().splitlines()
    gone = [line for line in lines if '"row":"TT 1"' in line and '"seed":3' in line]
    failed = json.loads(gone[0])
    failed = {k: v for k, v in failed.items() if k not in ("scores", "average")} | {"failed": "the run diverged"}
    kept = [line for line in lines if line not in gone]
    cells.write_text("\n".join([*kept, json.dumps(failed)]) + "\n")
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    assert "TT 1 lacks tasks or seeds" in capsys.readouterr().err
    text = (tmp_path / "results.md").read_text()
    assert "Not complete, so with fewer seeds or left out: TT 1" in text
    assert "Diverged, so that means are over the other runs: TT 1 (1 run, such as vader-movie, seed 3: the" in text


def test_a_loss_near_the_end_of_float32_is_a_number(cells):
    cells.write_text(cells.read_text().replace('"history":[[25,1.0]', '"history":[[25,3.4e+38]'))
    assert len(read_measured(cells, "test").rows) == len(TRUTH)


def test_a_row_that_diverged_everywhere(cells, tmp_path, capsys):
    """It is said once, and not that it has not been run."""
    lines = [json.loads(line) for line in cells.read_text().splitlines()]
    lines[0] = {"sweep": {"configurations": [{"name": name, "keys": {}} for name in ("small", "LoRA", "TT", "words")]}}
    for line in lines[1:]:
        if line["row"] == "small":
            line["failed"] = "the run diverged"
            del line["scores"], line["average"]
    cells.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    assert "is reported yet" not in capsys.readouterr().err
    assert (tmp_path / "results.md").read_text().count("small (9 runs, such as vader-movie, seed 1: the run div") == 1


def test_obsolete_records_do_not_count(cells, tmp_path):
    lines = cells.read_text().splitlines()
    old = [json.dumps({**json.loads(line), "average": {"test": 1.0}, "obsolete": True}) for line in lines[1:]]
    before = {row.name: row.average for row in read_measured(cells, "test").rows}
    cells.write_text("\n".join([*lines, *old]) + "\n")
    measured = read_measured(cells, "test")
    assert {row.name: row.average for row in measured.rows} == before
    assert measured.obsolete == len(old)


def test_partners_of_one_size(tmp_path):
    """The one with as many training rows, and else the best: a comparison with a bad one would flatter."""
    rows = {"low_resource": 100}, {"low_resource": 4000}
    truth = {
        f"{group} (low_resource={n})": (group, 1000, 60 + n / 200, {"low_resource": n})
        for group in ("LoRA", "TT")
        for n in (100, 4000)
    }
    measured = read_measured(written_cells(tmp_path / "rows.jsonl", truth), "test")
    found, _ = at_equal_size(measured, "TT", "LoRA")
    assert [each.other.grid for each in found] == [*rows]
    assert all(abs(each.by.mean) < 2 for each in found)
    truth = {"LoRA bad": ("LoRA", 1000, 60.0), "LoRA good": ("LoRA", 1000, 85.0), "TT": ("TT", 1000, 80.0)}
    measured = read_measured(written_cells(tmp_path / "rates.jsonl", truth), "test")
    ((only,), _) = at_equal_size(measured, "TT", "LoRA")
    assert (only.other.name, only.verdict) == ("LoRA good", "worse")


def test_rows_of_other_training_sizes_are_no_rivals(tmp_path, capsys):
    """The best, and the frontier, are those of each number of training rows: more rows are not a method."""
    truth = {
        f"{name} ({count})": (name, size, score + gain, {"low_resource": count})
        for count, gain in ((100, 0), (4000, 15), (None, 18))
        for name, size, score in (("LoRA", 1000, 65.0), ("TT", 500, 60.0))
    }
    cells = written_cells(tmp_path / "c.jsonl", truth)
    places = frontier_places(read_measured(cells, "test"))
    assert places == dict.fromkeys(truth, "yes")
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for words, row in (("100 training", "100"), ("4,000 training", "4000"), ("all training", "None")):
        assert f"- With {words} rows: LoRA ({row}) (1,000 parameters) scores highest" in printed
        assert f"- With {words} rows: The frontier by mean scores: TT ({row}) (500:" in printed
    page = (tmp_path / "results.html").read_text()
    assert "Score against trainable parameters, all training rows" in page


def test_equals_are_highest_together(tmp_path):
    cells = written_cells(tmp_path / "c.jsonl", {"a": ("TT", 10, 70.0), "b": ("LoRA", 20, 70.0)})
    lines = [json.loads(line) for line in cells.read_text().splitlines()]
    for line in lines[1:]:
        line["average"]["test"] = 70.0 + line["seed"]
    cells.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert best(read_measured(cells, "test")).startswith("a (10 parameters) and b (20 parameters) score highest, 72.00")


def test_partners_train_on_as_many_rows(tmp_path):
    """If that of 100 rows is missing, the one of all rows is none."""
    truth = {
        "TT (100)": ("TT", 1000, 60.0, {"low_resource": 100}),
        "TT (all)": ("TT", 1000, 75.0, {"low_resource": None}),
    }
    truth["LoRA (all)"] = ("LoRA", 1000, 76.0, {"low_resource": None})
    found, alone = at_equal_size(read_measured(written_cells(tmp_path / "c.jsonl", truth), "test"), "TT", "LoRA")
    assert [(each.row.name, each.other.name) for each in found] == [("TT (all)", "LoRA (all)")]
    assert [row.name for row in alone] == ["TT (100)"]


def test_training_rows_are_those_of_the_keys_too(tmp_path):
    truth = {
        "LoRA (100)": ("LoRA", 10, 60.0, {"low_resource": 100}),
        "ia3": ("others", 10, 75.0),
        "own": ("others", 9, 7.0),
    }
    cells = written_cells(tmp_path / "c.jsonl", truth)
    lines = cells.read_text().splitlines(keepends=True)
    for keys, words in (
        ({"low_resource": 1000}, "1,000"),
        ({"low_resource": None}, "all"),
        ({}, "their own number of"),
    ):
        plan = {"keys": keys, "configurations": [{"name": "own", "keys": {"low_resource": 7}}]}
        cells.write_text("".join([json.dumps({"sweep": plan}) + "\n", *lines[1:]]))
        parts = read_measured(cells, "test").parts
        assert [*parts] == ["7 training rows", "100 training rows", f"{words} training rows"]


def test_without_seeds_in_common_on_a_task_nothing_is_compared(tmp_path):
    """What is left would be a difference on other tasks."""
    truth = {"LoRA": ("LoRA", 1000, 70.0), "TT": ("TT", 1000, 60.0)}
    cells = written_cells(tmp_path / "c.jsonl", truth, compare={"TT": ["LoRA"]})
    lines = cells.read_text().splitlines(keepends=True)
    moved = [line.replace('"seed":', '"seed":10') if '"TT"' in line and "movie" in line else line for line in lines[1:]]
    cells.write_text("".join([lines[0], *moved]))
    measured = read_measured(cells, "test")
    assert at_equal_size(measured, "TT", "LoRA") == ([], [])
    assert "The seeds tell none of the 2 rows apart" in best(measured)


def test_what_the_sweep_names_and_no_record_has(cells, tmp_path, capsys):
    lines = cells.read_text().splitlines(keepends=True)
    plan = {
        "configurations": ["configs/small.json", "LoRA", {"name": "TT"}, {"baseline": "words"}, {"name": "gone"}],
        "tasks": ["vader-movie", "vader-nyt", "vader-tweets", "vader-amazon"],
        "seeds": [1, 2, 3, 4],
    }
    cells.write_text("".join([json.dumps({"sweep": plan}) + "\n", *lines[1:]]))
    measured = read_measured(cells, "test")
    assert measured.missing == ["gone", "1 of the tasks"]
    assert measured.partial == list(TRUTH)
    assert main(["--results", str(cells), "--output_dir", str(tmp_path)]) == 0
    assert "no run of gone is reported yet" in capsys.readouterr().err
    assert "not in the table: gone, 1 of the tasks" in (tmp_path / "results.md").read_text()


def test_points_of_a_grid_that_no_record_has(tmp_path):
    truth = {f"TT ({rank})": ("TT", 100 * rank, 70.0, {"tt_rank": rank}) for rank in (1, 2)}
    cells = written_cells(tmp_path / "c.jsonl", truth | {"LoRA": ("LoRA", 100, 70.0)})
    lines = cells.read_text().splitlines(keepends=True)
    plan = {"configurations": ["LoRA", "TT"], "grid": {"tt_rank": [1, 2, 4, 8]}}
    own = {"configurations": ["LoRA", {"name": "TT", "grid": {"tt_rank": [2, 4]}}], "grid": {"tt_rank": [1, 2]}}
    for each, missing in ((plan, ["TT (tt_rank=4)", "TT (tt_rank=8)"]), (own, ["TT (tt_rank=4)"])):
        cells.write_text("".join([json.dumps({"sweep": each}) + "\n", *lines[1:]]))
        assert read_measured(cells, "test").missing == missing


def test_who_may_be_on_the_frontier(tmp_path):
    """Only what was tested: classifiers without T5 and rows below the majority class were not."""
    truth = {**TRUTH, "silent": ("others", 16, 40.0)}
    measured = read_measured(written_cells(tmp_path / "c.jsonl", truth, without_backbone={"words"}), "test")
    places = frontier_places(measured)
    assert not {"words", "silent", "LoRA 2"} & places.keys()
    assert places["TT 1"] == "yes"
    assert set(places.values()) <= {"yes", "may be"}


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--results", "no.jsonl"], "no.jsonl"),
        (["--results", "CELLS", "--split", "train"], "no reported cell with scores on train"),
        (["--results", "CELLS", "outputs"], "one sweep with --results"),
        ([], "one sweep with --results"),
        (["--results", "DAMAGED"], "line 3"),
        (["--results", "OTHER ROWS"], "are not the same in all cells"),
        (["--results", "CHOSEN ONLY"], "no reported cell"),
        (["--results", "NO STAGE"], "is no record of a cell"),
        (["--results", "ODD AVERAGE"], "look at average"),
        (["--results", "ODD SCORES"], "look at scores on test"),
        (["--results", "NO MEMORY"], "look at memory_mib"),
        (["--results", "NO HISTORY"], "look at history"),
        (["--results", "NO SEED"], "look at seed"),
        (["--results", "NO SIZE"], "look at trainable"),
        (["--results", "ODD HISTORY"], "look at history"),
        (["--results", "LARGE"], "look at average"),
        (["--results", "ODD PUBLISHED"], "not in the format of run_sweep.py"),
        (["--results", "NEGATIVE"], "look at trainable"),
        (["--results", "ODD SEED"], "look at seed"),
        (["--results", "NO END"], "none of scores, failed, stopped"),
        (["--results", "TWICE"], "two records of LoRA 1 on vader-movie with seed 1"),
        (["--results", "ONE LINE"], "is no record of a cell"),
        (["--results", "NO ROWS"], "not in the format of run_sweep.py"),
        (["--results", "ODD SWEEP"], "not in the format of run_sweep.py"),
        (["--results", "NO ROW WHOLE"], "no row has a score on every task yet"),
    ],
)
def test_one_line(cells, tmp_path, capsys, arguments, words):
    lines = cells.read_text().splitlines(keepends=True)
    files = {
        "CELLS": lines,
        "DAMAGED": [*lines[:2], "{]\n", *lines[3:]],
        "OTHER ROWS": [*lines[:-1], lines[-1].replace('"hash":{"test":["', '"hash":{"test":["other')],
        "NO STAGE": [line.replace('"stage":"report",', "") for line in lines],
        "ODD AVERAGE": [line.replace('"average":{', '"average":1,"other":{') for line in lines],
        "ODD SCORES": [line.replace('"accuracy":', '"accuracy":"","x":') for line in lines],
        "NO MEMORY": [line.replace('"memory_mib":800', '"memory_mib":null') for line in lines],
        "NO HISTORY": [line.replace('"history"', '"historie"') for line in lines],
        "NO SEED": [line.replace('"seed":', '"sead":') for line in lines],
        "NO SIZE": [line.replace('"trainable":', '"trained":') for line in lines],
        "ODD HISTORY": [line.replace('"history":[', '"history":[[25,"x"],') for line in lines],
        "LARGE": [line.replace('"average":{', '"average":{"x":1e300,') for line in lines],
        "ODD PUBLISHED": ['{"sweep":{"published":{"source":"x","scores":null}}}\n', *lines[1:]],
        "NEGATIVE": [line.replace('"trainable":1000,', '"trainable":-1000,') for line in lines],
        "ODD SEED": [line.replace('"seed":1,', '"seed":true,') for line in lines],
        "NO END": [line.replace('"scores"', '"scored"') for line in lines],
        "TWICE": [*lines, next(line for line in lines if '"LoRA 1"' in line)],
        "ONE LINE": ["[" + ",".join(lines[1:]).replace("\n", "") + "]"],
        "NO ROWS": [line.replace('"rows":{"test":500}', '"rows":{"test":0}') for line in lines],
        "ODD SWEEP": ['{"sweep":{"compare":[1]}}\n', *lines[1:]],
        "NO ROW WHOLE": [
            line for n, line in enumerate(lines) if '"TT 1"' in line and "nyt" in line or "LoRA 1-vader-m" in line
        ],
        "CHOSEN ONLY": [line.replace('"stage":"report"', '"stage":"choose"') for line in lines],
    }
    for name, content in files.items():
        (tmp_path / name).write_text("".join(content))
    given = [str(tmp_path / a) if a in files else a for a in arguments]
    assert main([*given, "--output_dir", str(tmp_path / "out")]) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert words in errors[-1]
    assert len([line for line in errors if line.startswith("error: ")]) == 1
    assert not (tmp_path / "out").exists()
