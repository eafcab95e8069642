"""report.py on runs that are damaged, odd or diverged."""

import csv
import math
import sys

import pytest

import report
from seq2seq.comparison.words import safe
from tests.report.written_runs import rows_of, split, write_diverged, write_run
from tests.test_bad_input import tree


@pytest.mark.parametrize("count", [1, 30])
def test_odd_runs_are_drawn(tmp_path, make_report, count):
    """No history, nothing trained, equal scores, nan losses and scores, no majority, long names."""
    odd = {"history": None, "seconds": None, "peak_memory_mib": math.nan}
    for i in range(count):
        write_run(tmp_path / f"runs/{i}", f"name-{i}" * 12, trainable=0, **odd)
    if count > 1:
        write_run(tmp_path / "runs/nan", "nan", scores=math.nan, history=[{"step": 1, "loss": math.nan}])
        write_run(tmp_path / "runs/large", "large", trainable=10**9, history=[{"step": 1, "loss": 1e9}, {"loss": 3.0}])
        write_run(tmp_path / "runs/inf", "inf", scores=math.inf)
        bare = {"tasks": {"movie": {"scores": {"accuracy": -3.0}, "majority": None}}, "average_metrics": -3.0}
        write_run(tmp_path / "runs/bare", "bare", splits={"test": bare})
    status, errors, out = make_report(tmp_path / "runs")
    assert (status, errors) == (0, [])
    assert "Score against trainable parameters" in (out / "report.html").read_text()


def test_names_are_escaped(tmp_path, make_report):
    name = "<script>alert('x')</script> & \"q\" $\\frac$ url(#a) |*\x00\n"
    write_run(tmp_path / "runs/a", name, scores={"<b>movie": 70.0, 'a"b': 60.0})
    out = make_report(tmp_path / "runs")[2]
    page = (out / "report.html").read_text()
    assert page.count("<script>") == 1
    assert "&lt;script&gt;alert" in page
    assert "<b>movie" not in page
    assert "url(#a)" in page
    assert safe(name.strip("\n\x00")) in (out / "report.md").read_text()


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("results.json", "{", "cannot be read"),
        ("results.json", "[1]", "does not hold a JSON object"),
        ("results.json", '{"experiment_name": "x", "splits": {"test": {"task": "movie"}}}', "no 'parameters'"),
        ("resolved_config.json", "\0", "cannot be read"),
    ],
)
def test_an_unreadable_run_is_skipped_with_one_line(two_tasks, make_report, file, content, words):
    write_run(two_tasks / "broken")
    (two_tasks / "broken" / file).write_text(content)
    status, errors, out = make_report(two_tasks)
    assert (status, len(errors)) == (0, 1)
    assert errors[0].startswith(f"warning: {two_tasks / 'broken' / file} ")
    assert words in errors[0]
    assert len(rows_of(out)) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"splits": {"test": {"task": "movie", "scores": {"accuracy": 1.0}}}},
        {"splits": {"test": {"tasks": {"movie": {"scores": {"accuracy": "high"}}}}}},
        {"splits": []},
        {"parameters": {"trainable": "many"}},
        {"low_resource": 0},
        {"history": [3]},
    ],
)
def test_results_of_another_shape_are_skipped(two_tasks, make_report, change):
    write_run(two_tasks / "old", **change)
    status, errors, _ = make_report(two_tasks)
    assert (status, len(errors)) == (0, 1)
    assert "is not in the current format of run_seq2seq.py" in errors[0]


def test_runs_without_the_split_are_left_out(two_tasks, make_report):
    write_run(two_tasks / "unscored", splits={"validation": split({"movie": 1.0})})
    assert make_report(two_tasks)[1] == ["warning: 1 of 5 runs have no scores on test and are skipped"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["PATH", "usage: python report.py"]),
        (["runs", "--splits", "x"], ["--splits", "usage"]),
        (["no/such/place"], ["no/such/place does not exist"]),
        (["runs", "--split", "dev"], ["no run has scores on --split 'dev'", "available: test"]),
        (["other"], ["no finished run in", "other", "1 unfinished and 1 unreadable", "results.json"]),
        (["runs", "--output_dir", "/dev/null/out"], ["output_dir is '/dev/null/out'"]),
    ],
    ids=lambda value: "-".join(value),
)
def test_bad_input_is_one_line(two_tasks, tmp_path, monkeypatch, capfd, arguments, words):
    write_run(tmp_path / "other/broken")
    (tmp_path / "other/broken/results.json").write_text("{")
    (tmp_path / "other/unfinished").mkdir()
    (tmp_path / "other/unfinished/resolved_config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert report.main(arguments) == 2
    errors = capfd.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert all(word in errors[0] for word in words), errors
    assert tree(tmp_path) == before


def test_training_rows_are_those_of_either_key(tmp_path, make_report):
    """low_resource draws so many, max_train_samples takes the first ones."""
    write_run(tmp_path / "runs/a", "drawn", low_resource=30)
    write_run(tmp_path / "runs/b", "first", config={"max_train_samples": 100})
    write_run(tmp_path / "runs/c", "whole")
    status, _, out = make_report(tmp_path / "runs")
    assert status == 0
    rows = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    assert {row["configuration"]: row["low_resource"] for row in rows} == {"drawn": "30", "first": "100", "whole": ""}


def test_missing_matplotlib_is_told_before_anything_is_written(two_tasks, make_report, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, errors, out = make_report(two_tasks)
    assert (status, errors) == (2, ['error: matplotlib not installed; in the clone, run pip install -e ".[lab]"'])
    assert not out.exists()


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        report.main(["--help"])
    assert stop.value.code == 0
    assert "usage: python report.py PATH" in capsys.readouterr().out


def test_runs_that_diverged_are_named(two_tasks, make_report, capfd):
    write_diverged(two_tasks / "x", {"experiment_name": "x", "step": 12, "what": {"what": "loss", "value": "nan"}})
    write_diverged(two_tasks / "y", {"experiment_name": "y", "step": 3, "what": "norm of the gradient"})
    write_diverged(two_tasks / "z", "{")
    write_run(two_tasks / "older", "older", history=[{"step": 5, "loss": None}, {"step": 6, "loss": math.inf}])
    status = report.main([str(two_tasks), "--output_dir", str(two_tasks / "report")])
    printed, errors = capfd.readouterr()
    lines = {
        f"{two_tasks}/x diverged at step 12: the loss is not finite",
        f"{two_tasks}/y diverged at step 3: the norm of the gradient is not finite",
        f"{two_tasks}/z diverged: the loss is not finite",
    }
    assert status == 0
    assert {f"warning: {line}" for line in lines} <= set(errors.splitlines())
    assert "unfinished" not in errors
    lines.add(f"{two_tasks}/older diverged at step 5: the loss is not finite")
    assert lines <= set(printed.splitlines())
    for name in ("report.md", "report.html"):
        text = (two_tasks / "report" / name).read_text()
        assert "Diverged runs" in text
        assert all(line in text for line in lines)


def test_where_all_runs_diverged_that_is_the_reason(tmp_path, make_report):
    write_diverged(tmp_path / "runs/x", {"step": 12, "what": "loss"})
    status, errors, _ = make_report(tmp_path / "runs")
    assert (status, len(errors)) == (2, 1)
    assert "runs/x diverged at step 12: the loss is not finite" in errors[0]


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": {"trainable": 10**400, "backbone": 10}},
        {"parameters": {"trainable": -1, "backbone": 10}},
        {"parameters": {"trainable": math.inf, "backbone": 10}},
        {"low_resource": 1e400},
        {"method": "9" * 5000, "seconds": int("9" * 4000)},
        {"history": [[[[[]]]]] * 3},
        {"history": [{"step": 1e308, "loss": 1.0}]},
        {"splits": {"test": {"tasks": [1]}}},
    ],
    ids=str,
)
def test_one_absurd_run_does_not_end_the_report(two_tasks, make_report, change):
    write_run(two_tasks / "absurd", **change)
    status, errors, out = make_report(two_tasks)
    assert (status, len(errors)) == (0, 1), errors
    assert errors[0].startswith(f"warning: {two_tasks / 'absurd/results.json'} ")
    assert len(rows_of(out)) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 1e308, "peak_memory_mib": -1e308},
        {"scores": 1e308},
        {"trainable": 2**62},
        {"name": "x" * 100_000},
        {"history": [{"step": 1, "loss": 1e308, "grad_norm": 5e-324}, {"step": 2, "loss": 5e-324}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_extreme_but_possible_runs_are_shown(tmp_path, make_report, change):
    write_run(tmp_path / "runs/a")
    write_run(tmp_path / "runs/b", **{"name": "b", **change})
    status, errors, out = make_report(tmp_path / "runs")
    assert (status, errors) == (0, [])
    assert len(rows_of(out)) == 2


def test_nested_results_are_one_warning(two_tasks, make_report):
    write_run(two_tasks / "nested")
    (two_tasks / "nested/results.json").write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")
    status, errors, _ = make_report(two_tasks)
    assert (status, len(errors)) == (0, 1)
    assert "nested more than 100 deep" in errors[0]


def test_no_cell_of_the_csv_is_a_formula(tmp_path, make_report):
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)"]
    for i, name in enumerate(names):
        write_run(tmp_path / f"runs/{i}", name, scores={"=task": -0.5})
    rows = rows_of(make_report(tmp_path / "runs")[2])
    assert sorted(row["configuration"] for row in rows) == sorted(f"'{name}" for name in names)
    assert {row["task"] for row in rows} == {"'=task"}
    assert {row["mean"] for row in rows} == {"-0.5"}


def test_links_of_names_are_no_links():
    assert safe("[x](javascript:1) `a` ~b~") == "\\[x\\](javascript:1) \\`a\\` \\~b\\~"
