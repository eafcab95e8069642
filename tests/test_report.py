"""report.py: finding runs, grouping them, numbers computed by hand, and the files it writes."""

import csv
import json
import math
import os
import re
import sys
import xml.etree.ElementTree as ElementTree

import pytest

import report
from seq2seq.comparison.configurations import Statistic, collect
from seq2seq.comparison.page import safe
from seq2seq.comparison.plots.drawing import log_ticks
from seq2seq.comparison.plots.parameters import pareto
from tests.test_bad_input import tree

BACKBONE = 10_000
HISTORY = [
    {"step": 10, "loss": 2.0, "epoch": 0.5},
    {"step": 20, "loss": 1.0},
    {"step": 20, "eval_average_metrics": 60.0},
    {"step": 30, "loss": math.nan},
]


def split(accuracies: dict) -> dict:
    tasks = {
        task: {"scores": {"accuracy": score, "loss": 0.5}, "average_metrics": score, "majority": {"accuracy": 50.0}}
        for task, score in accuracies.items()
    }
    return {"tasks": tasks, "average_metrics": sum(accuracies.values()) / len(accuracies)}


def write_run(directory, name="lora", *, scores=70.0, seed=1, trainable=100, low_resource=None, config=(), **results):
    """A finished run; `scores` on the task "movie", or by task."""
    directory.mkdir(parents=True)
    scores = scores if isinstance(scores, dict) else {"movie": scores}
    content = {
        "experiment_name": name,
        "method": f"{name} method",
        "splits": {"test": split(scores)},
        "parameters": {"trainable": trainable, "total": BACKBONE + trainable, "backbone": BACKBONE},
        "seed": seed,
        "low_resource": low_resource,
        "seconds": 100.0 + seed,
        "peak_memory_mib": 500.0,
        "output_dir": str(directory),
        "history": HISTORY,
        **results,
    }
    resolved = {"experiment_name": name, "seed": seed, "output_dir": str(directory), "low_resource": low_resource}
    (directory / "results.json").write_text(json.dumps(content))
    (directory / "resolved_config.json").write_text(json.dumps({**resolved, **dict(config)}))


@pytest.fixture
def make_report(tmp_path, capfd):
    """make_report(argument ..) -> (exit status, lines on standard error, output directory)."""

    def call(*arguments, out="report"):
        capfd.readouterr()
        status = report.main([*map(str, arguments), "--output_dir", str(tmp_path / out)])
        return status, capfd.readouterr().err.splitlines(), tmp_path / out

    return call


@pytest.fixture
def two_tasks(tmp_path):
    """The directory of runs on two tasks: three seeds of one configuration and one of another."""
    for seed, movie in ((1, 70.0), (2, 72.0), (3, 77.0)):
        write_run(tmp_path / f"runs/lora-{seed}", scores={"movie": movie, "amazon": 60.0}, seed=seed)
    write_run(tmp_path / "runs/deep/bitfit", "bitfit", scores={"movie": 71.0, "amazon": 64.0}, trainable=10)
    return tmp_path / "runs"


def rows_of(directory) -> list[dict]:
    with open(directory / "report.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_mean_and_deviation_by_hand(two_tasks, make_report):
    status, errors, out = make_report(two_tasks)
    assert (status, errors) == (0, [])
    rows = {(row["configuration"], row["task"]): row for row in rows_of(out)}
    assert len(rows) == 6
    row = rows["lora", "movie"]
    assert float(row["mean"]) == 73.0
    assert float(row["standard_deviation"]) == pytest.approx(math.sqrt((9 + 1 + 16) / 2), rel=1e-15)
    assert (row["metric"], row["seeds"], row["method"]) == ("accuracy", "3", "lora method")
    assert (row["trainable_parameters"], float(row["percent_of_backbone"])) == ("100", 1.0)
    assert (float(row["seconds"]), float(row["memory_mib"]), float(row["majority"])) == (102.0, 500.0, 50.0)
    assert row["low_resource"] == ""
    average = rows["lora", "average"]
    assert (average["metric"], float(average["mean"])) == ("average_metrics", 66.5)
    assert float(average["standard_deviation"]) == pytest.approx(math.sqrt(26 / 2) / 2)
    assert (rows["bitfit", "average"]["mean"], rows["bitfit", "average"]["standard_deviation"]) == ("67.5", "")


def test_one_value_has_no_deviation():
    assert Statistic.of([3.0]).mean == 3.0
    assert math.isnan(Statistic.of([3.0]).deviation)
    assert math.isnan(Statistic.of([]).mean)


def test_the_markdown_table(two_tasks, make_report):
    text = (make_report(two_tasks)[2] / "report.md").read_text()
    assert "| configuration | method | amazon | movie | average | seeds |" in text
    assert (
        "| lora | lora method | 60.00 ± 0.00 | **73.00 ± 3.61** | 66.50 ± 1.80 | 3 | 100 | 1.000 | 102 | 500 |" in text
    )
    assert "| bitfit | bitfit method | **64.00** | 71.00 | **67.50** | 1 | 10 | 0.100 |" in text
    assert "| majority class |  | 50.00 | 50.00 |  |" in text


def test_the_page(two_tasks, make_report):
    page = (make_report(two_tasks)[2] / "report.html").read_text()
    assert "4 runs of 2 configurations, scored on test of amazon, movie. bitfit scores highest: 67.50" in page
    assert re.search(r'data-v="73.0"><b>73.00 ± 3.61</b>', page)
    for title in ("Score against trainable parameters", "Learning curves", "Scores by task"):
        assert f"<h3>{title}</h3>" in page
    assert "Score against training rows" not in page
    assert "1 to 3 seeds" in page
    assert not re.search(r"<(link|img|script src|iframe)|@import|url\(http", page)
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|xlink:href=")#([^)"]*)', page)) <= set(ids)
    assert "prefers-color-scheme:dark" in page
    for svg in re.findall(r"<svg role.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(svg)
        assert "var(--ink, " in svg
        assert "<text" in svg


@pytest.mark.parametrize(
    ("norms", "drawn"),
    [
        ([], False),  # as in results of before it was logged
        ([1.5, 0.5, 0.7], True),
        ([3e38, math.nan, 1e-30], True),
        ([0.0, math.inf, 0.0], True),
        ([math.nan, math.inf, None], False),
    ],
)
def test_the_norm_of_the_gradient_is_drawn_beside_the_loss_where_it_was_logged(tmp_path, make_report, norms, drawn):
    for seed in (1, 2):
        logged = [{"step": 10 * i, "loss": 1 / i, "grad_norm": norm} for i, norm in enumerate(norms, 1)]
        write_run(tmp_path / f"runs/{seed}", seed=seed, history=[*HISTORY, *logged])
    write_run(tmp_path / "runs/before", "before")
    status, errors, out = make_report(tmp_path / "runs")
    assert (status, errors) == (0, [])
    page = (out / "report.html").read_text()
    titles = re.findall(r">(training loss|norm of the gradient|average_metrics, validation)</text>", page)
    assert titles == ["training loss", *["norm of the gradient"][:drawn], "average_metrics, validation"]
    assert ("The norm of the gradient is measured before clipping." in page) == drawn


def test_ticks_of_a_log_axis_are_few():
    for low, high in ((0.5, 3.0), (1e-3, 1e6), (1e-30, 1e38)):
        assert 3 <= len(log_ticks(low, high)) <= 11


def test_the_same_runs_make_the_same_files(two_tasks, make_report):
    first, second = make_report(two_tasks)[2], make_report(two_tasks, out="again")[2]
    for name in ("report.csv", "report.md", "report.html"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert {path.name for path in first.iterdir()} == {"report.csv", "report.md", "report.html"}


def test_configurations_of_one_name_are_told_apart(tmp_path):
    for rank in (2, 4):
        for seed in (1, 2):
            config = {"tt_rank": rank, "shape": [2, 3], "data_seed": seed, "dry_run": bool(seed - 1)}
            write_run(tmp_path / f"{rank}-{seed}", "tt", seed=seed, config=config)
    write_run(tmp_path / "other", "lora", config={"tt_rank": 8})
    configurations, warnings = collect([str(tmp_path)], "test")
    assert [(c.name, len(c.runs)) for c in configurations] == [
        ("tt (tt_rank=2)", 2),
        ("tt (tt_rank=4)", 2),
        ("lora", 1),
    ]
    assert not warnings


def test_numbers_of_training_rows_are_one_family(tmp_path, make_report):
    for rows in (100, 1000, None):
        config = {"low_resource": [100, 1000]} if rows else {}
        write_run(tmp_path / f"runs/{rows}", scores=60.0 + len(str(rows)), low_resource=rows, config=config)
    configurations, _ = collect([str(tmp_path / "runs")], "test")
    names = {"lora (low_resource=100)", "lora (low_resource=1000)", "lora (low_resource=null)"}
    assert {c.name for c in configurations} == names
    assert {c.family for c in configurations} == {"lora"}
    out = make_report(tmp_path / "runs")[2]
    page = (out / "report.html").read_text()
    assert "Score against training rows" in page
    assert "shown at its largest training set" in page
    assert [row["low_resource"] for row in rows_of(out)] == ["", "1000", "100"]
    assert "| lora | lora method | 1,000 | **64.00** |" in (out / "report.md").read_text()


def test_runs_given_twice_count_once_and_repeated_seeds_are_told(tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b")
    os.symlink(tmp_path / "a", tmp_path / "link")
    os.symlink(tmp_path, tmp_path / "b/up")
    configurations, warnings = collect([str(tmp_path), str(tmp_path / "a"), str(tmp_path)], "test")
    assert len(configurations[0].runs) == 2
    assert warnings == ["lora: seed 1 occurs more than once; all runs are counted"]


def test_scores_on_other_tasks_stand_apart(tmp_path, make_report):
    write_run(tmp_path / "runs/a", scores={"movie": 70.0})
    write_run(tmp_path / "runs/b", "bitfit", scores={"amazon": 90.0})
    text = (make_report(tmp_path / "runs")[2] / "report.md").read_text()
    assert "## amazon" in text
    assert "## movie" in text
    assert "2 groups of tasks" in text


def test_the_frontier():
    points = [(100, 70.0), (10, 60.0), (50, 60.0), (10, 60.0), (200, 69.0), (0, 50.0), (5, math.nan), (300, 70.0)]
    assert pareto(points) == [0, 1, 3, 5]
    assert pareto([]) == []


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


def write_diverged(directory, content):
    directory.mkdir(parents=True)
    (directory / "resolved_config.json").write_text("{}")
    (directory / "diverged.json").write_text(content if isinstance(content, str) else json.dumps(content))


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
