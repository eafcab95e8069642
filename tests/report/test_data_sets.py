"""report.py on runs of several data sets: what is compared with what."""

import re

import pytest

from seq2seq.comparison.configurations import collect
from seq2seq.comparison.sections import sections
from tests.report.written_runs import rows_of, write_run


def data(name="tickets", digest="0123456789abcdef", rows=600) -> dict:
    return {"data": {"name": name, "hash": digest}, "rows": rows}


def compared(directory) -> dict[str, set[str]]:
    """The names of the runs' experiments by the title of their section."""
    found = sections(collect([str(directory)], "test")[0])
    assert len({section.title for section in found}) == len(found)
    return {section.title: {c.first.name for c in section.configurations} for section in found}


def test_three_data_sets_have_three_sections(tmp_path, make_report):
    for name, digest, best in (("tickets", "aa", 80.0), ("notes", "bb", 90.0), ("spam", "cc", 70.0)):
        facts = data(name, digest)
        write_run(tmp_path / f"runs/{name}/lora", scores={"file": best}, facts=facts, history=None)
        write_run(
            tmp_path / f"runs/{name}/tt", "tt", scores={"file": best - 5}, facts=facts, trainable=10, history=None
        )
    status, errors, out = make_report(tmp_path / "runs")
    assert (status, errors) == (0, [])
    page = (out / "report.html").read_text()
    assert re.findall(r"<h2>(.*?)</h2>", page) == ["notes (600 rows)", "spam (600 rows)", "tickets (600 rows)"]
    assert page.count("<h3>Score against trainable parameters</h3>") == 3
    assert page.count("majority class</td>") == 3
    for best in ("80.00", "90.00", "70.00"):
        assert f"<b>{best}</b>" in page
        assert f"lora scores highest: {best} with 100 trainable parameters" in page
    assert not re.search(r">[^<]*\bfile\b", page)
    rows = rows_of(out)
    assert {(row["data_set"], row["task"], row["rows"], row["data_hash"]) for row in rows} == {
        ("notes", "notes", "600", "bb"),
        ("spam", "spam", "600", "cc"),
        ("tickets", "tickets", "600", "aa"),
    }


def test_other_rows_of_the_same_data_stand_apart(tmp_path):
    write_run(tmp_path / "all", "all", scores={"file": 70.0}, facts=data())
    write_run(tmp_path / "few", "few", scores={"file": 70.0}, facts=data(digest="1", rows=60))
    write_run(tmp_path / "new", "new", scores={"file": 70.0}, facts=data(digest="fedcba9876543210"))
    assert compared(tmp_path) == {
        "tickets (600 rows, 01234567)": {"all"},
        "tickets (600 rows, fedcba98)": {"new"},
        "tickets (60 rows)": {"few"},
    }


def test_the_same_run_on_other_rows_is_another_configuration(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / f"runs/{seed}", seed=seed, scores={"file": 70.0 + seed}, facts=data(digest=str(seed)))
    assert [c.average.mean for c in collect([str(tmp_path)], "test")[0]] == [71.0, 72.0]


def test_other_metrics_stand_apart(tmp_path):
    write_run(tmp_path / "a", "a", facts=data("movie"))
    write_run(tmp_path / "b", "b", facts={**data("movie"), "scores": {"accuracy": 1.0, "f1": 2.0}})
    assert compared(tmp_path) == {"movie (600 rows, accuracy)": {"a"}, "movie (600 rows, accuracy and f1)": {"b"}}


@pytest.mark.parametrize(
    ("older", "apart"),
    [
        ({"rows": 600}, False),
        ({"rows": 599}, True),
        ({}, True),
    ],
    ids=str,
)
def test_older_runs_join_a_published_task_of_as_many_rows(tmp_path, older, apart):
    write_run(tmp_path / "new", "new", facts=data("movie"))
    write_run(tmp_path / "old", "old", facts=older)
    assert len(compared(tmp_path)) == 1 + apart


def test_older_runs_join_nothing_where_two_sets_have_as_many_rows(tmp_path):
    write_run(tmp_path / "a", "a", facts=data("movie", "1"))
    write_run(tmp_path / "b", "b", facts=data("movie", "2"))
    write_run(tmp_path / "old", "old", facts={"rows": 600})
    assert compared(tmp_path)["movie (600 rows, hash unknown)"] == {"old"}


def test_older_runs_of_own_files_are_told_apart_by_their_path(tmp_path):
    facts = {"rows": 600}
    for name in ("a", "b"):
        config = {"train_file": f"{name}/data.csv"}
        write_run(tmp_path / name, scores={"file": 70.0}, facts=facts, config=config)
    write_run(tmp_path / "c", "test", scores={"file": 70.0}, facts=facts, config={"test_file": "t.csv", **config})
    assert compared(tmp_path) == {
        "a/data.csv (600 rows)": {"lora"},
        "b/data.csv (600 rows)": {"lora"},
        "t.csv (600 rows)": {"test"},
    }


def test_a_file_called_like_a_task_beside_it(tmp_path):
    write_run(tmp_path / "a", scores={"file": 70.0, "movie": 60.0}, facts=data("movie"))
    assert list(compared(tmp_path)) == ["movie (600 rows), movie (file) (600 rows)"]


def test_the_terminal_has_a_table_for_each_data_set(tmp_path, capfd):
    import report

    for name in ("notes", "tickets"):
        write_run(tmp_path / name, scores={"file": 70.0}, facts=data(name, name), history=None)
    assert report.main([str(tmp_path), "--output_dir", str(tmp_path / "report")]) == 0
    printed = capfd.readouterr().out
    assert "scores on test of notes (600 rows)" in printed
    assert "scores on test of tickets (600 rows)" in printed
    assert printed.count("lora method") == 2


@pytest.mark.parametrize(
    "facts",
    [
        {"data": 3},
        {"rows": 1.5},
        {"rows": -1},
        {"classes": [{"label": "a"}]},
        {"classes": [{"label": "a", "precision": "x", "recall": 1, "f1": 1, "count": 1, "predicted": 1}]},
        {"confusion": {"labels": ["a"], "matrix": [[1]]}},
        {"confusion": {"labels": [], "matrix": []}},
        {"confusion": {"labels": ["a"], "matrix": [[1, -1]]}},
        {"confusion": {"labels": ["a", "a"], "matrix": [[1, 0, 0], [0, 1, 0]]}},
    ],
    ids=str,
)
def test_facts_of_another_shape_are_one_warning(two_tasks, facts):
    write_run(two_tasks / "odd", facts=facts)
    configurations, warnings = collect([str(two_tasks)], "test")
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{two_tasks / 'odd/results.json'} is not in the current format")
    assert sum(len(c.runs) for c in configurations) == 4
