"""The per-class table and the confusion matrix, in results and terminal."""

import io
import random

import pytest
from datasets import Dataset
from rich.console import Console
from sklearn.metrics import classification_report

from seq2seq.class_tables import print_classes
from seq2seq.classes import class_results
from seq2seq.data import get_task
from seq2seq.data.batches import TaskRows
from seq2seq.predictions import majority_baseline, say_what_is_undefined

LABELS = ["Bug", "Feature request", "never", "[bold]x[/bold]\n"]
RNG = random.Random(0)
TARGETS = RNG.choices(["Bug", "Feature request", "[bold]x[/bold]"], [60, 30, 10], k=300)
PREDICTED = [text if RNG.random() < 0.7 else RNG.choice([" Bug", "Feature  request", "bug", ""]) for text in TARGETS]


def test_classes_are_those_of_scikit_learn():
    results = class_results(PREDICTED, TARGETS, LABELS)
    clean = [" ".join(text.split()) or "none" for text in PREDICTED]
    expected = classification_report(TARGETS, clean, output_dict=True, zero_division=0)
    for entry in results["classes"]:
        of_class = expected.get(entry["label"].strip(), {"precision": 0, "recall": 0, "f1-score": 0, "support": 0})
        assert entry["precision"] == pytest.approx(100 * of_class["precision"])
        assert entry["recall"] == pytest.approx(100 * of_class["recall"])
        assert entry["f1"] == pytest.approx(100 * of_class["f1-score"])
        assert entry["count"] == of_class["support"]
        assert entry["predicted"] == clean.count(entry["label"].strip())
    assert [entry["label"] for entry in results["classes"]] == LABELS == results["confusion"]["labels"]


def test_a_confusion_matrix_counts_every_row_once():
    matrix = class_results(PREDICTED, TARGETS, LABELS)["confusion"]["matrix"]
    assert [len(row) for row in matrix] == [5] * 4
    assert [sum(row) for row in matrix] == [TARGETS.count(label.strip()) for label in LABELS]
    bugs = [text for text, target in zip(PREDICTED, TARGETS, strict=True) if target == "Bug"]
    of_each = [sum(text.split() == label.split() for text in bugs) for label in LABELS]
    assert matrix[0] == [*of_each, bugs.count("") + bugs.count("bug")]


def test_a_text_that_is_neither_of_two_labels_is_no_class():
    results = class_results(["1", "x", "0", "x"], ["1", "1", "0", "0"], ["0", "1"])
    assert results["confusion"]["matrix"] == [[1, 0, 1], [0, 1, 1]]
    assert [entry["predicted"] for entry in results["classes"]] == [1, 1]


def printed(results: dict, width: int = 80) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_classes(console, "a task, test", results)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_terminal_shows_both_as_they_are():
    lines = printed(class_results(PREDICTED, TARGETS, LABELS))
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["class", "precision", "recall", "F1", "rows", "predicted"]
    entry = class_results(PREDICTED, TARGETS, LABELS)["classes"][1]
    scores = [f"{entry[name]:.2f}" for name in ("precision", "recall", "f1")]
    row = ["2", "Feature", "request", *scores, str(entry["count"]), str(entry["predicted"])]
    assert row in [line.split() for line in lines]
    assert any("[bold]x[/bold]\\n" in line for line in lines)
    assert not any("most frequent" in line for line in lines)


def test_of_many_classes_the_most_frequent_are_shown():
    labels = [f"class {n}" for n in range(60)]
    targets = [label for n, label in enumerate(labels) for _ in range(n)]
    lines = printed(class_results(["class 59"] * len(targets), targets, labels), 80)
    assert max(map(len, lines)) <= 80
    assert "the 20 most frequent of 60 classes; results.json has all" in lines
    assert "59   class 58" in " ".join(lines)
    assert "others" in lines[lines.index("rows by prediction") + 1].split()
    matrix_row = next(line.split() for line in reversed(lines) if "class 58" in line)
    assert sum(map(int, matrix_row[3:])) == 58


def rows_of(name: str, **columns) -> TaskRows:
    return TaskRows(get_task(name), Dataset.from_dict({"source": ["s"] * len(columns["target"]), **columns}))


def test_a_score_that_does_not_exist_is_said(capsys):
    task = get_task("stsb")
    say_what_is_undefined("of odd", task, ["1.0", "1.0"], {"target": ["1.0", "2.0"]})
    say_what_is_undefined("validation", task, ["1.0", "3.0"], {"target": ["1.0", "2.0"]})
    said = "is undefined, as every prediction is the same; it is given as 0"
    lines = [f"warning: of odd: {name} of stsb {said}" for name in ("pearson", "spearmanr")]
    assert capsys.readouterr().err.splitlines() == lines


def test_the_majority_answers_what_is_right_in_most_rows():
    answers = [["Rome", "in Rome"], ["Paris", "in Paris"], ["the big city", "in Paris"], ["Rome"], ["x", "in Paris"]]
    rows = rows_of("squad", target=[each[0] for each in answers], answers=answers)
    assert majority_baseline(rows)["em"] == 60
