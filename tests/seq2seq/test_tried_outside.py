"""What people who had not written the program found when they tried it on files of their own."""

import csv
import gzip
import io
import json

import pyarrow
import pytest
from pyarrow import parquet

from common.secrets import masked
from predict import main
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import get_task
from seq2seq.data.batches import load_texts, tasks_of_splits
from seq2seq.data.inputs import inputs_of
from seq2seq.data.tables import open_table
from seq2seq.predicting import predict
from seq2seq.predictor import Predictor
from tests.seq2seq.test_own_rows import refused, rows_of, task_of, write
from tests.seq2seq.test_predict import read, trained  # noqa: F401  (a fixture)


def test_a_bad_row_does_not_make_quotes_text(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"he said ""hi"""\ta\n"x\ny"\tb\nshort\n')
    assert rows_of(path, on_bad_rows="skip") == [('he said "hi"', "a"), ("x\ny", "b")]
    path.write_text('text\tlabel\t\n"hi, you"\t"a"\t\n"b"\t"c"\n')
    assert rows_of(path) == [("hi, you", "a"), ("b", "c")]


def test_a_wrong_quote_is_one_bad_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,label\na,1\n"bad" quote,2\nb,3\n')
    assert rows_of(path, on_bad_rows="skip") == [("a", "1"), ("b", "3")]
    assert "line 3: ',' expected after '\"'" in refused(lambda: rows_of(path))
    path.write_text('text,label\na,1\n"never closed,2\nb,3\nc,4\n')
    message = refused(lambda: rows_of(path, on_bad_rows="skip"))
    assert "line 5: unexpected end of data, in a row that begins on line 3; is a quote there not closed?" in message


def test_spare_and_repeated_columns_that_are_not_used_do_not_matter(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label,x,x,\na,1,2,3\nb,2,3,4,\n")
    assert rows_of(path) == [("a", "1"), ("b", "2")]
    assert "two columns have the same name" in refused(lambda: rows_of(path, source_template="{x}"))


def test_a_header_that_columns_denies_is_said(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text("Text;Category\na;1\n")
    rows_of(path, columns=["text", "label"])
    assert "begins with a row that looks like a header (Text, Category)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("caf\u00e9 \u00fc\n".encode() * 3 + b"caf\xe9\n", "is not UTF-8: byte 35 (line 5), though most of it is"),
        (gzip.compress(b"a\n" * 100_000, mtime=0)[:-100], "cannot be read"),
        (gzip.compress(b"a\n" * 100_000, mtime=0)[:-8] + b"12345678", "cannot be read"),
    ],
)
def test_damaged_text_is_refused(content, words, tmp_path):
    (tmp_path / "a.csv").write_bytes(content if content[:1] == b"\x1f" else b"text\n" + content)
    assert words in refused(lambda: open_table(tmp_path / "a.csv", "FILE"))


def test_labels_that_differ_in_white_space_are_one(tmp_path):
    path = write(tmp_path / "a.jsonl", *({"text": "a", "label": label} for label in ("Bug fix", "Bug  fix", "other")))
    assert task_of(path, labels="auto").labels == ["Bug fix", "other"]
    assert [label for _, label in rows_of(path, labels="auto")] == ["Bug fix", "Bug fix", "other"]
    numbers = pyarrow.table({"text": ["a", "b", "c"], "label": [1.0, None, 2.0]})
    parquet.write_table(numbers, tmp_path / "train.parquet")
    test = write(tmp_path / "b.jsonl", {"text": "a", "label": 1}, {"text": "a", "label": "2.0"})
    task = task_of(test, train_file=str(tmp_path / "train.parquet"), labels="auto", on_bad_rows="skip")
    assert [row["target"] for row in task.examples("test")] == ["1", "2"]
    three = write(tmp_path / "c.jsonl", *({"text": "a", "label": label} for label in "abc"))
    assert "f1 needs two labels, but there are 3" in refused(
        lambda: task_of(three, labels="auto", metrics=["f1"]).labels
    )
    several = write(tmp_path / "d.jsonl", {"text": "a", "label": ["x", "z"]}, {"text": "b", "label": "y"})
    assert task_of(several, labels="auto", multiple="first").labels == ["x", "y", "z"]


def test_the_same_rows_have_one_hash_whatever_is_made_of_them(tmp_path):
    rows = [{"text": f"{n}", "more": "m", "label": "ab"[n % 2]} for n in range(20)]
    path = write(tmp_path / "v1.tickets.en.jsonl", *rows)

    def data(**keys) -> tuple[str, str]:
        keys = {"source_template": "{text}", **keys}
        arguments = DataTrainingArguments(task_name="file", test_file=str(path), **keys)
        (rows,) = load_texts(tasks_of_splits(arguments, 1), ["test"], arguments, 1, False)["test"]
        return rows.task.data_name, rows.data_hash

    name, one = data()
    assert name == "v1.tickets.en"
    others = {"labels": "auto"}, {"labels": ["b", "a"]}, {"labels": ["a", "b"], "source_template": "{more} {text}"}
    assert {data(**keys)[1] for keys in others} == {one}
    assert data(max_test_samples=10)[1] != one
    assert data(target_column="more")[1] != one


def test_columns_with_signs_and_late_or_missing_ones(tmp_path):
    rows = [{"Q: text": "a", "label": "x"}] * 150
    path = write(tmp_path / "a.jsonl", *rows, {"Q: text": "b", "late": "c", "label": "y"})
    assert rows_of(path, source_template="{Q: text}")[0] == ("a", "x")
    found = rows_of(path, source_template="{Q: text} {late} {never}", optional_columns=["late", "never"])
    assert found[-1] == ("b c ", "y")


def test_other_unfinished_files_and_the_input_are_kept(trained, tmp_path):  # noqa: F811
    path = tmp_path / "x.unfinished.csv"
    path.write_text("text\ncrash\n")
    assert predict(trained, path, tmp_path / "x.csv").rows == 1
    assert path.read_text() == "text\ncrash\n"
    assert list(read(tmp_path / "x.csv").text) == ["crash"]
    assert len(list(tmp_path.iterdir())) == 2


def test_columns_that_come_late_are_written(trained, tmp_path):  # noqa: F811
    rows = [{"id": n, "text": "crash"} for n in range(700)] + [
        {"id": 0.5, "text": None, "extra": ["x"], "deep": {"a": 1}}
    ]
    path = write(tmp_path / "a.jsonl", *rows)
    predict(trained, path, tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert table[-1] == {"id": 0.5, "text": None, "extra": ["x"], "deep": {"a": 1}, "prediction": None}
    predict(trained, path, tmp_path / "a.csv")
    last = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))[-1]
    assert last == {"id": "0.5", "text": "", "extra": '["x"]', "deep": '{"a": 1}', "prediction": ""}
    taken = write(tmp_path / "b.jsonl", *rows, {"text": "a", "prediction": "mine"})
    assert "has a column 'prediction' already" in refused(lambda: predict(trained, taken))


def test_parquet_is_written_whatever_its_first_rows_are(trained, tmp_path):  # noqa: F811
    raw, nothing = pyarrow.array([b"ab", b"\xff"] + [None] * 599), pyarrow.array([float("nan")] * 601)
    columns = [pyarrow.array([None] * 600 + ["crash"]), raw, nothing, nothing]
    table = pyarrow.Table.from_arrays(columns, ["text", "raw", "a", "a"])
    parquet.write_table(table, tmp_path / "a.parquet")
    predict(trained, tmp_path / "a.parquet", scores=True)
    written = parquet.ParquetFile(tmp_path / "a.predictions.parquet").read()
    assert written.column_names[:5] == ["text", "raw", "a", "a", "prediction"]
    assert written.column("prediction").null_count == 600
    predict(trained, tmp_path / "a.parquet", tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    assert lines[:3] == ["text,raw,a,a,prediction", ",ab,,,", r",\xff,,,"]
    predict(trained, tmp_path / "a.parquet", tmp_path / "a.jsonl")
    first = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])
    assert first == {"text": None, "raw": "ab", "a": None, "a (column 4)": None, "prediction": None}


def test_half_a_character_does_not_stop_predictions(trained, tmp_path):  # noqa: F811
    path = write(tmp_path / "a.jsonl", {"text": "crash \u00e9", "other": "\ud800"})
    for kind in ("jsonl", "csv"):
        predict(trained, path, tmp_path / f"b.{kind}")
        assert "\\ud800" in (tmp_path / f"b.{kind}").read_text()


def test_the_ending_of_the_output_is_its_format(trained, tmp_path):  # noqa: F811
    path = write(tmp_path / "a.jsonl", {"text": "crash"})
    for ending, begin in ((".CSV", "text,"), (".ndjson", "{"), (".tab", "text\t"), ("", "{")):
        predict(trained, path, tmp_path / f"out{ending}")
        assert (tmp_path / f"out{ending}").read_text().startswith(begin)
    for ending in (".xlsx", ".csv.gz"):
        assert "its ending must be one of .csv, .tsv" in refused(
            lambda e=ending: predict(trained, path, tmp_path / f"x{e}")
        )
    assert "a directory" in refused(lambda: predict(trained, path, tmp_path, overwrite=True))


def test_rows_before_a_quote_that_is_not_closed_are_kept(trained, tmp_path):  # noqa: F811
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "crash\n" * 20 + '"never closed\n')
    assert "the 20 rows before it are in" in refused(lambda: predict(trained, path))
    assert len(read(tmp_path / "a.predictions.unfinished.csv")) == 20


def test_interrupted_predictions_are_kept(trained, tmp_path, monkeypatch, capsys):  # noqa: F811
    path = write(tmp_path / "a.jsonl", *({"text": "crash"} for _ in range(20)))
    monkeypatch.setattr("seq2seq.predicting.ROWS", 10)
    calls, original = [], Predictor.answer

    def interrupted(self, sources):
        calls.append(sources)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, sources)

    monkeypatch.setattr(Predictor, "answer", interrupted)
    assert main([str(trained), str(path)]) == 130
    kept = tmp_path / "a.predictions.unfinished.jsonl"
    assert f"interrupted; the 10 rows before it are in {kept}" in capsys.readouterr().err
    assert len(kept.read_text().splitlines()) == 10


def targets(path, name: str, **keys) -> list:
    task = get_task(name, DataTrainingArguments(task_name=name, **keys))
    table = open_table(path, "FILE")
    inputs = inputs_of(table, task)
    (batch,) = table.batches(inputs.columns)
    assert inputs.sources(batch)[1] == {}
    return inputs.targets(batch)


def test_targets_of_published_tasks_are_read(tmp_path):
    pair = {"sentence1": "a", "sentence2": "b"}
    path = write(tmp_path / "a.jsonl", *({**pair, "label": label} for label in (1, "0", "equivalent", "-", "what")))
    assert [row and row["target"] for row in targets(path, "mrpc")] == ["1", "0", "1", None, None]
    assert targets(path, "mrpc", label_style="words")[0] == {"target": "equivalent"}
    path = write(tmp_path / "a.jsonl", {"question": "a", "passage": "b", "label": True})
    assert targets(path, "superglue-boolq") == [{"target": "1"}]
    path = write(tmp_path / "a.jsonl", {**pair, "label": 3.7})
    assert targets(path, "stsb") == [{"target": "3.6"}]
    path = write(tmp_path / "a.jsonl", {"question": "a", "context": "b", "answers": {"text": ["c", "d"]}})
    assert targets(path, "squad") == [{"target": "c", "answers": ["c", "d"]}]
    row = {"question": "a", "answer": "b", "paragraph": "c", "label": 0}
    assert targets(write(tmp_path / "a.jsonl", row), "superglue-multirc") is None
    assert targets(write(tmp_path / "a.jsonl", {**row, "idx": {"question": 7}}), "superglue-multirc") == [
        {"target": "0", "idx": 7}
    ]
    row = {
        "text": "Mia thanked her",
        "span1_text": "Mia",
        "span1_index": "0",
        "span2_text": "her",
        "span2_index": "2.0",
    }
    assert targets(write(tmp_path / "a.jsonl", {**row, "label": "True"}), "superglue-wsc.fixed") == [{"target": "1"}]


def test_the_working_directory_is_no_secret(monkeypatch):
    monkeypatch.setenv("PWD", "/home/someone")
    monkeypatch.setenv("DB_PWD", "correct horse")
    assert masked("/home/someone/a.csv correct horse") == "/home/someone/a.csv (hidden)"
