"""Records that are read: partial, of another form, or damaged."""

import json

import pytest

from report import main
from seq2seq.results.reading import read_measured
from tests.results.written_cells import TRUTH, written_cells


def test_files_of_windows_editors(cells, tmp_path):
    """Which begin with a byte order mark and end lines with two characters."""
    expected = read_measured(cells, "test")
    cells.write_bytes(b"\xef\xbb\xbf" + cells.read_bytes().replace(b"\n", b"\r\n"))
    assert read_measured(cells, "test").rows == expected.rows


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
