"""report.py: finding runs, grouping them, numbers computed by hand, and the files it writes."""

import math
import os
import re
import xml.etree.ElementTree as ElementTree

import pytest

from seq2seq.comparison.configurations import collect
from seq2seq.comparison.numbers import Statistic
from seq2seq.comparison.plots.drawing import log_ticks
from seq2seq.comparison.plots.parameters import pareto
from tests.report.written_runs import HISTORY, rows_of, write_run


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
    names = {"lora, 100 rows", "lora, 1,000 rows", "lora, all rows"}
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
    assert "2 sections, as scores on different rows" in text


def test_the_frontier():
    points = [(100, 70.0), (10, 60.0), (50, 60.0), (10, 60.0), (200, 69.0), (0, 50.0), (5, math.nan), (300, 70.0)]
    assert pareto(points) == [0, 1, 3, 5]
    assert pareto([]) == []
