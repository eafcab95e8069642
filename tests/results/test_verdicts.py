"""What the results of a sweep say of records whose truth is known."""

import json

from report import main
from seq2seq.results.comparisons import at_equal_size, behind, frontier
from seq2seq.results.conclusions import best, limits
from seq2seq.results.reading import read_measured
from seq2seq.results.tables import frontier_places
from tests.results.written_cells import TRUTH, written_cells


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


def test_who_may_be_on_the_frontier(tmp_path):
    """Only what was tested: classifiers without T5 and rows below the majority class were not."""
    truth = {**TRUTH, "silent": ("others", 16, 40.0)}
    measured = read_measured(written_cells(tmp_path / "c.jsonl", truth, without_backbone={"words"}), "test")
    places = frontier_places(measured)
    assert not {"words", "silent", "LoRA 2"} & places.keys()
    assert places["TT 1"] == "yes"
    assert set(places.values()) <= {"yes", "may be"}
