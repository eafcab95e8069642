"""Scores by class and confusion matrices in a report."""

import re

import numpy
import pytest

from seq2seq.comparison.classes import Confusion, total
from seq2seq.comparison.configurations import collect
from tests.report.written_runs import write_run


def facts(matrix, labels=("Bug", "Feature request")) -> dict:
    """What results.json holds on classes, computed from a confusion matrix."""
    counts = numpy.array(matrix)
    hits, true, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)[:-1]
    table = [
        {
            "label": label,
            "precision": 100 * hits[i] / max(predicted[i], 1),
            "recall": 100 * hits[i] / true[i],
            "f1": 200 * hits[i] / (true[i] + predicted[i]),
            "count": int(true[i]),
            "predicted": int(predicted[i]),
        }
        for i, label in enumerate(labels)
    ]
    own = {"data": {"name": "tickets", "hash": "1"}, "rows": int(counts.sum())}
    return {**own, "classes": table, "confusion": {"labels": list(labels), "matrix": counts.tolist()}}


@pytest.fixture
def tickets(tmp_path):
    """Two seeds of the best configuration, and one of another."""
    for seed, matrix in ((1, [[6, 1, 1], [2, 30, 0]]), (2, [[8, 0, 0], [4, 26, 2]])):
        write_run(tmp_path / f"runs/{seed}", scores={"file": 90.0}, seed=seed, facts=facts(matrix), history=None)
    write_run(tmp_path / "runs/tt", "tt", scores={"file": 50.0}, facts=facts([[0, 8, 0], [0, 32, 0]]), history=None)
    return tmp_path / "runs"


def test_scores_by_class_by_hand(tickets, make_report):
    status, errors, out = make_report(tickets)
    assert (status, errors) == (0, [])
    text = (out / "report.md").read_text()
    assert "percent: precision, recall and F1 of lora, and F1 of the others; the best of each class is bold." in text
    assert "| class | rows | precision | recall | F1 | F1, tt |" in text
    # Bug: precision 6/8 and 8/12, recall 6/8 and 8/8, F1 12/16 and 16/20.
    assert "| Bug | 8 | 70.83 ± 5.89 | 87.50 ± 17.68 | **77.50 ± 3.54** | 0.00 |" in text
    assert text.index("| Feature request | 32 |") < text.index("| Bug | 8 |")


def test_the_page_shows_bars_and_the_summed_matrix(tickets, make_report):
    page = (make_report(tickets)[2] / "report.html").read_text()
    assert "<h3>F1 by class, tickets</h3>" in page
    assert re.findall(r"<text[^>]*>([^<]+ \(\d+\))</text>", page) == ["Feature request (32)", "Bug (8)"]
    matrix = page[page.index('<table class="confusion">') :]
    assert re.findall(r"<td[^>]*>([\d,]+)</td>", matrix) == ["56", "6", "2", "1", "14", "1"]
    assert "no class" in matrix
    assert "--share:88%" in matrix  # 56 of 64
    assert "by the class that lora predicts (across), summed over 2 seeds" in page


def test_no_column_for_other_texts_if_there_are_none(tmp_path, make_report):
    write_run(tmp_path / "runs/a", scores={"file": 90.0}, facts=facts([[1, 0, 0], [0, 1, 0]]), history=None)
    page = (make_report(tmp_path / "runs")[2] / "report.html").read_text()
    assert "no class" not in page
    assert len(re.findall(r'<td[^>]*style="--share', page)) == 4


def test_runs_without_classes_have_neither(two_tasks, make_report):
    out = make_report(two_tasks)[2]
    page = (out / "report.html").read_text()
    assert "by class" not in page
    assert '<table class="confusion">' not in page
    assert "| class |" not in (out / "report.md").read_text()


def test_many_classes(tmp_path, make_report):
    labels = [f"<{i}> & a label of so many words that it fits nowhere" for i in range(30)]
    matrix = numpy.hstack([numpy.diag(numpy.arange(30, 0, -1)), numpy.ones((30, 1), dtype=int)])
    for name in "abcdefghi":
        write_run(tmp_path / f"runs/{name}", name, scores={"file": 90.0}, facts=facts(matrix, labels), history=None)
    page = (make_report(tmp_path / "runs")[2] / "report.html").read_text()
    assert "The 20 largest of 30 classes are shown. 8 of 9 configurations are shown" in page
    assert "The 11 largest of 30 classes are shown." in page
    assert page.count("19 others") == 2
    assert "<0>" not in page


def test_the_other_classes_keep_their_rows():
    counts = numpy.random.default_rng(0).integers(0, 50, (9, 10))
    whole = Confusion(tuple("abcdefghi"), counts)
    part = whole.largest(4)
    order = numpy.argsort(-counts.sum(axis=1))[:3]
    assert part.labels == (*(whole.labels[i] for i in order), "6 others")
    assert (part.counts[:3, :3] == counts[numpy.ix_(order, order)]).all()
    assert part.counts.sum() == counts.sum()
    assert part.counts[:, -1].sum() == counts[:, -1].sum()
    rest = [i for i in range(9) if i not in order]
    assert part.counts[3, 3] == counts[numpy.ix_(rest, rest)].sum()
    assert sorted(whole.largest(9).labels) == list("abcdefghi")


def test_matrices_are_added_by_label():
    one = Confusion(("a", "b"), numpy.array([[1, 2, 3], [4, 5, 6]]))
    other = Confusion(("b", "a"), numpy.array([[1, 0, 0], [0, 1, 0]]))
    assert total([one, other]).counts.tolist() == [[2, 2, 3], [4, 6, 6]]
    assert total([one, Confusion(("a",), numpy.array([[1, 0]]))]) is None
    assert total([]) is None


def test_a_seed_without_a_class_counts_for_the_others(tickets):
    configurations, _ = collect([str(tickets)], "test")
    best = next(c for c in configurations if c.first.name == "lora")
    assert {label: scores.f1.count for label, scores in best.classes("tickets").items()} == {
        "Feature request": 2,
        "Bug": 2,
    }
    assert best.confusion("tickets").rows.tolist() == [16, 64]
