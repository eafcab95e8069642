"""The user's own data: what is read of each kind of file, how it is split, and one line for whatever is wrong."""

import json

import pyarrow
import pytest
from pyarrow import parquet

from common.errors import ConfigError
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import SPLITS, get_task
from seq2seq.data.splits import normalise
from seq2seq.data.tables import open_table, read_table
from seq2seq.data.tables.cells import Reading

TEMPLATE = "aspect: {aspect} text: {text}"
LABELS = ["bad", "good"]


def file_task(**settings):
    arguments = {"task_name": "file", "source_template": TEMPLATE, **settings}
    return get_task(
        "file", DataTrainingArguments(**{k: str(v) if k.endswith("_file") else v for k, v in arguments.items()})
    )


def reviews(path, count: int = 200, start: int = 0):
    """A CSV of `count` rows; each text stands in it twice, in other case."""
    rows = [f"Food {n // 2}{'!' * (n % 2)},taste,{LABELS[n // 2 % 2]}" for n in range(start, start + count)]
    path.write_text("\n".join(["text,aspect,label", *rows]))
    return path


def as_texts(path, **reading) -> list[dict]:
    """The cells of a file as texts, by row and column."""
    table = open_table(path, "train_file")
    (batch,) = table.batches(table.columns)
    columns = [Reading(**reading).texts(batch.columns[name]).values.to_pylist() for name in table.columns]
    return [dict(zip(table.columns, row, strict=True)) for row in zip(*columns, strict=True)]


def refuses(call, *words):
    with pytest.raises(ConfigError) as error:
        call()
    assert "\n" not in str(error.value)
    assert all(str(word) in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b'\xef\xbb\xbftext,aspect,label\r\n"NA, ""so""\r\nto say",007,1\r\nnull,"",1.0\r\n'),
        ("a.tsv", b'text\taspect\tlabel\nNA, "so"\\nto say\t007\t1\nnull\t\t1.0\n'),
        (
            "a.jsonl",
            b'{"text": "NA, \\"so\\"\\r\\nto say", "aspect": "007", "label": 1}\n\n{"text": "null", "label": 1.0}\n',
        ),
        (
            "a.json",
            b'[{"text": "NA, \\"so\\"\\r\\nto say", "aspect": "007", "label": 1},\n{"text": "null", "label": 1.0}]',
        ),
    ],
)
def test_cells_are_read_as_text(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    rows = as_texts(path)
    first = 'NA, "so"\\nto say' if name == "a.tsv" else 'NA, "so"\r\nto say'
    assert rows[0] == {"text": first, "aspect": "007", "label": "1"}
    assert rows[1] == {"text": None, "aspect": None, "label": "1.0"}


def test_parquet_and_json_keep_their_types(tmp_path):
    rows = [{"text": "a", "n": 1, "parts": ["x", "é"]}, {"text": None, "n": None, "parts": []}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("a.parquet", "a.jsonl"):
        assert read_table(tmp_path / name, "data_dir").to_list() == rows
        assert as_texts(tmp_path / name, multiple="join") == [
            {"text": "a", "n": "1", "parts": "x é"},
            {"text": None, "n": None, "parts": None},
        ]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xlsx", b"PK\x03\x04...", ["is a zip archive or an Excel workbook; export it as CSV"]),
        ("a.dat", b"\0\1\2", ["is not text, nor parquet", "csv, tsv, jsonl, json, parquet"]),
        ("a.txt", b"text\n", ["holds no rows"]),
        ("a.csv", b"", ["holds no rows"]),
        ("a.jsonl", b"\n\n", ["holds no rows"]),
        ("a.json", b"[]", ["holds no rows"]),
        ("a.csv", b"text,label\n", ["holds no rows"]),
        ("a.csv", b"text,label\nfine,1\ncaf\xe9\x81,1\n", ["is not UTF-8: byte 21 (line 3)", "cp1252", "set encoding"]),
        ("a.csv", b"text,label\na,1\nb,1,2\n", ["line 3: 3 cells; the header has 2"]),
        ("a.csv", b'text,label\n"a\nb",1\nc\n', ["line 4: 1 cells; the header has 2"]),
        ("a.csv", b'text,label\n"never closed,1\n', ["line 2: unexpected end of data"]),
        ("a.csv", b"text,text\na,1\n", ["line 1: two columns have the same name: text, text"]),
        ("a.tsv", b'text\tlabel\n"a\tb"\t1\n"a\t1\t2\n', ["line 2: 3 cells"]),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', ["line 2: invalid JSON: Expecting value"]),
        ("a.jsonl", b'{"text": "a"}\n["a"]\n', ['line 2: ["a"] is not an object']),
        (
            "a.json",
            b'[{"text": "a"},\n{"text" "b"}]',
            ["invalid JSON: Expecting ':' delimiter at character 9 (line 2)"],
        ),
        ("a.json", b"[1]", ["row 1: 1 is not an object"]),
        ("a.jsonl", b"[" * 100_000, ["invalid JSON"]),
        ("a.jsonl", b'{"n": 1}\n{"n": "one"}', ["column n has values of different types"]),
        ("a.jsonl", b'{"n": 123456789012345678901234567890}', ["column n has values of different types"]),
        ("a.jsonl", b'{"n": "\\ud800"}', ["column n has values of different types"]),
        ("a.parquet", b"PAR1 no PAR1", ["cannot be read"]),
        ("a.parquet", b"", ["cannot be read"]),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    refuses(lambda: read_table(tmp_path / name, "train_file"), f"train_file: {tmp_path / name}", *words)


def test_a_truncated_parquet_file_is_one_line(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {n}" for n in range(5000)]}), path)
    whole = path.read_bytes()
    for damaged in (whole[:-20], whole[: len(whole) // 2], whole[:2000] + bytes(3000) + whole[5000:]):
        path.write_bytes(damaged)
        refuses(lambda: read_table(path, "data_dir"), "data_dir: ", "cannot be read")


def test_a_missing_file_or_a_directory_is_one_line(tmp_path):
    refuses(lambda: read_table(tmp_path / "no.csv", "test_file"), "test_file: ", "no.csv does not exist")
    (tmp_path / "a.csv").mkdir()
    refuses(lambda: read_table(tmp_path / "a.csv", "test_file"), "is a directory")


def test_one_file_becomes_three_splits(tmp_path):
    task = file_task(train_file=reviews(tmp_path / "a.csv"), labels=LABELS)
    parts = [list(task.examples(split)["source"]) for split in SPLITS]
    assert [len(part) for part in parts] == pytest.approx([140, 30, 30], abs=2)
    assert len(set().union(*parts)) == 200
    words = [{normalise(source) for source in part} for part in parts]
    assert len(set().union(*words)) == sum(map(len, words)) == 100
    assert task.examples("train")[0]["source"].startswith("aspect: taste text: Food ")
    assert set(task.examples("test")["target"]) == set(LABELS)


def test_only_missing_files_are_cut(tmp_path):
    train, other = reviews(tmp_path / "a.csv"), reviews(tmp_path / "b.csv", 10, start=1000)
    for given, cut in (("validation", "test"), ("test", "validation")):
        task = file_task(train_file=train, **{f"{given}_file": other})
        sizes = {split: len(task.examples(split)) for split in SPLITS}
        assert sizes.pop(given) == 10
        assert [sizes["train"], sizes[cut]] == pytest.approx([170, 30], abs=2)
        assert not set(task.examples("train")["source"]) & set(task.examples(cut)["source"])
    task = file_task(train_file=train, validation_file=other, test_file=other)
    assert [len(task.examples(split)) for split in SPLITS] == [200, 10, 10]
    assert len(file_task(test_file=other).examples("test")) == 10
    refuses(lambda: file_task(test_file=other).examples("train"), "train_file is null")
    refuses(lambda: file_task(test_file=other).examples("validation"), "train_file is null")


def test_targets_decide_the_metrics(tmp_path):
    assert file_task(labels=LABELS).score([" good", "x"], {"target": ["good", "bad"]}) == {"accuracy": 50.0}
    assert file_task().score(["The end!", " x "], {"target": ["end", "x"]}) == {"exact": 50.0}
    assert file_task(metrics=["em"]).score(["The end!", "x"], {"target": ["end", "y"]}) == {"em": 50.0}
    both = file_task(metrics=["em", "text_f1"]).score(["the big end"], {"target": ["end"]})
    assert file_task(metrics=["exact_match"]).score(["7 Ab%", "7 ab%"], {"target": ["7 Ab%"] * 2}) == {"exact": 50.0}
    assert both == {"em": 0.0, "text_f1": pytest.approx(100 * 2 / 3)}
    three = file_task(labels=["a", "b", "c"], metrics=["f1_multiclass"]).score(["a", "?"], {"target": ["a", "b"]})
    assert three == {"f1_multiclass": 50.0}


def test_numbers_take_their_range_from_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("aspect,text,label\n" + "".join(f"a,text {n},{n / 2}\n" for n in range(-3, 8)))
    for key in ("train_file", "test_file"):
        task = file_task(metrics=["pearson"], **{key: path})
        assert task.score_range == (-1.5, 3.5)
        assert task.score(["-1.5", "?"], {"target": ["3.0", "-1.0"]}) == {"pearson": pytest.approx(100.0)}
    path.write_text("aspect,text,label\na,b,1\na,c,one\na,d,nan\n")
    refuses(
        lambda: file_task(train_file=path, metrics=["pearson"]).examples("train"), "row 2: label is 'one'", "number"
    )
    path.write_text("aspect,text,label\na,b,1\na,c,1e400\n")
    refuses(lambda: file_task(train_file=path, metrics=["pearson"]).examples("train"), "row 2: label is '1e400'")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"source_template": None}, ["source_template is null", "columns text, aspect, label"]),
        ({"source_template": "text: {txt}"}, ["{txt}", "columns text, aspect, label"]),
        ({"source_template": "text: {}"}, ["{}", "columns text, aspect, label"]),
        ({"source_template": "text: {0}"}, ["{0}", "columns text, aspect, label"]),
        ({"source_template": "text: {text.__class__}"}, ["{text.__class__}", "columns text, aspect, label"]),
        ({"source_template": "text: {text[0]}"}, ["{text[0]}", "columns text, aspect, label"]),
        ({"source_template": "text: {text!r}"}, ["{text}", "columns text, aspect, label"]),
        ({"source_template": "text: {text:>9}"}, ["{text}", "columns text, aspect, label"]),
        ({"source_template": "text: {text"}, ["source_template is 'text: {text'", "columns text, aspect, label"]),
        ({"source_template": "text"}, ["no column in braces", "columns text, aspect, label"]),
        ({"target_column": "stars"}, ["target_column is 'stars'", "a.csv", "text, aspect, label"]),
        (
            {"labels": ["good", "fine"]},
            ["a.csv: 100 of 200 rows", "row 1: label is 'bad'; allowed by labels: good, fine (line 2)"],
        ),
        ({"train_file": None}, ["train_file is null"]),
        ({"train_file": "/no/such.csv"}, ["train_file: /no/such.csv does not exist"]),
    ],
)
def test_a_setting_that_does_not_fit_the_file_is_one_line(tmp_path, settings, words):
    settings = {"train_file": reviews(tmp_path / "a.csv"), **settings}
    settings = {key: value for key, value in settings.items() if value is not None or key != "train_file"}
    refuses(lambda: file_task(**settings).examples("train"), *words)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": " ", "aspect": "a", "label": "good"}, "column text is empty"),
        ({"text": None, "aspect": "a", "label": "good"}, "column text is empty"),
        ({"text": "b", "label": "good"}, "column aspect is empty"),
        ({"text": "b", "aspect": "a", "label": ""}, "column label is empty"),
        ({"text": "b", "aspect": "a", "label": 1}, "label is '1'; allowed by labels: bad, good"),
    ],
)
def test_a_row_that_cannot_be_used_is_one_line(tmp_path, row, words):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "b", "aspect": "a", "label": "good"}) + "\n" + json.dumps(row))
    for key in ("train_file", "test_file"):
        task = file_task(labels=LABELS, **{key: path})
        refuses(lambda task=task, key=key: task.examples(key.split("_")[0]), f"{key}: {path}, row 2: {words}")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": ["good"]}, ["labels is ['good']", "two or more"]),
        ({"labels": ["good", "good"]}, ["two or more texts that differ"]),
        ({"labels": ["good", " good"]}, ["two or more texts that differ"]),
        ({"labels": ["good", " "]}, ["two or more texts that differ"]),
        ({"labels": [0, 1]}, ["labels is [0, 1]"]),
        ({"metrics": ["acuracy"]}, ["metrics is ['acuracy']", "accuracy, f1, "]),
        ({"metrics": ["em", "em"]}, ["different metrics"]),
        ({"metrics": ["accuracy"]}, ["labels is None", "accuracy compares labels"]),
        ({"metrics": ["pearson"], "labels": LABELS}, ["pearson compares numbers"]),
        ({"metrics": ["em", "pearson"]}, ["em compares texts, pearson compares numbers"]),
        ({"metrics": ["f1"], "labels": ["a", "b", "c"]}, ["f1 needs two labels", "f1_multiclass"]),
    ],
)
def test_labels_and_metrics_that_do_not_fit_are_one_line(settings, words):
    refuses(lambda: file_task(**settings), *words)


def test_the_template_is_the_whole_source(tmp_path):
    task = file_task(train_file=reviews(tmp_path / "a.csv"), source_template="{{{text}}} is {text}?")
    source = task.examples("train", prefix=True)[0]["source"]
    assert source == f"{{{source[-7:-1].strip()}}} is {source[-7:-1].strip()}?"


def test_columns_may_be_called_source_and_target(tmp_path):
    (tmp_path / "a.tsv").write_text("source\ttarget\tother\nHow?\t So. \tx\n")
    task = file_task(test_file=tmp_path / "a.tsv", source_template="q: {source}", target_column="target")
    assert task.examples("test").to_list() == [{"source": "q: How?", "target": "So."}]
