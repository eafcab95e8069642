"""Files as people have them: what they are, their encodings, delimiters, quotes, headers and types."""

import csv
import datetime
import gzip
import io
import json

import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from common.errors import ConfigError
from seq2seq.data.tables import Form, open_table, where
from seq2seq.data.tables.cells import Reading
from seq2seq.data.tables.wide import Wrong, first_cells


def cells(path, **form) -> dict[str, list]:
    """All cells as the file has them."""
    table = open_table(path, "FILE", Form(**form))
    batches = list(table.batches(table.columns))
    assert not any(batch.problems for batch in batches)
    return {name: [cell for batch in batches for cell in batch.columns[name]] for name in table.columns}


def write(path, content) -> object:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


TWO = {"text": ["good, really", "bad"], "label": ["1", "0"]}


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.csv", 'text,label\n"good, really",1\nbad,0\n', {}),
        ("a.csv", '\ufefftext,label\r\n"good, really",1\r\nbad,0\r\n', {}),
        ("a.CSV", 'text,label\n"good, really",1\n\nbad,0', {}),
        ("a.csv", "text\tlabel\ngood, really\t1\nbad\t0\n", {}),
        ("a.csv", "text;label\ngood, really;1\nbad;0\n", {}),
        ("a.csv", "text|label\ngood, really|1\nbad|0\n", {}),
        ("a.csv", "text~label\ngood, really~1\nbad~0\n", {"delimiter": "~"}),
        ("a.csv", 'text,label,\n"good, really",1,\nbad,0,\n', {}),
        ("a.csv", ',text,label\n,"good, really",1\n,bad,0\n', {}),
        ("a.tsv", "text\tlabel\ngood, really\t1\nbad\t0\n", {}),
        ("a.tsv", 'text\tlabel\n"good, really"\t1\nbad\t0\n', {}),
        ("a.tsv", 'text,label\n"good, really",1\nbad,0\n', {}),
        ("a.txt", "text\tlabel\ngood, really\t1\nbad\t0\n", {}),
        ("a", 'text,label\n"good, really",1\nbad,0\n', {}),
        ("a.data", '{"text": "good, really", "label": "1"}\n{"text": "bad", "label": "0"}\n', {}),
        ("a.csv", '{"text": "good, really", "label": "1"}\n{"text": "bad", "label": "0"}\n', {}),
        ("a.ndjson", '{"text": "good, really", "label": "1"}\n{"text": "bad", "label": "0"}\n', {}),
        ("a.json", '{"text": "good, really", "label": "1"}\n{"text": "bad", "label": "0"}\n', {}),
        ("a.jsonl", '[{"text": "good, really", "label": "1"}, {"text": "bad", "label": "0"}]', {}),
        ("a.txt", "good, really\t1\nbad\t0\n", {"columns": ("text", "label")}),
        ("a.csv", 'text,label\n"good, really",1\nbad,0\n', {"columns": ("text", "label")}),
        ("a.csv", gzip.compress(b'text,label\n"good, really",1\nbad,0\n', mtime=0), {}),
        ("a.csv.gz", gzip.compress(b'text,label\n"good, really",1\nbad,0\n', mtime=0), {}),
        ("a.csv", 'text,label\n"good, really",1\nbad,0\n'.encode("utf-16"), {}),
        ("a.csv", 'text,label\n"good, really",1\nbad,0\n'.encode("utf-16-le"), {"encoding": "utf-16-le"}),
    ],
)
def test_what_a_file_is(tmp_path, name, content, form):
    found = cells(write(tmp_path / name, content), **form)
    found.pop("", None)
    assert found == TWO


def test_parquet_under_any_name(tmp_path):
    parquet.write_table(pyarrow.table(TWO), tmp_path / "a.csv")
    found = cells(tmp_path / "a.csv")
    assert {name: [cell.as_py() for cell in column] for name, column in found.items()} == TWO


@pytest.mark.parametrize("quoted", ['"a"\t1\n"b\t2\n', 'x\t1\n"a" b\t2\n', '"a\t1\n"b\t2\n'])
def test_quotes_of_tsv_are_text_unless_every_cell_that_begins_with_one_is_well_quoted(tmp_path, quoted):
    path = write(tmp_path / "a.tsv", f"text\tlabel\n{quoted}")
    assert cells(path)["text"] == [line.split("\t")[0] for line in quoted.splitlines()]
    assert cells(write(path, 'text\tlabel\n"a\tb"\t1\n"say ""so"""\t2\nin"side\t3\n'))["text"] == [
        "a\tb",
        'say "so"',
        'in"side',
    ]
    assert cells(write(path, 'text\tlabel\n"a"\t1\n'), quoted=False)["text"] == ['"a"']


def test_an_encoding_that_is_not_utf_8_is_said(tmp_path):
    path = write(tmp_path / "a.csv", "text,label\nfine,1\ncafé “x”,2\n".encode("cp1252"))
    table = open_table(path, "FILE")
    assert [batch.columns["text"] for batch in table.batches(["text"])] == [["fine", "café “x”"]]
    (note,) = table.source.notes
    assert "is not UTF-8: byte 21 (line 3); it is read as cp1252" in note
    assert not open_table(path, "FILE", Form(encoding="latin-1")).source.notes
    for encoding, words in (("utf-9", "is unknown"), ("utf-8", "encoding is 'utf-8'"), ("ascii", "is not ascii")):
        with pytest.raises(ConfigError, match=words):
            open_table(path, "FILE", Form(encoding=encoding))
    long = "text\n" + "é" * (1 << 19) + "\n"  # a character across two blocks
    assert cells(write(path, "a" + long))["atext"] == ["é" * (1 << 19)]


def test_a_first_row_that_is_data_gets_a_hint(tmp_path):
    path = write(tmp_path / "a.csv", "I love it,5\nI hate it,1\n")
    assert "set columns to the names of its columns" in open_table(path, "FILE").hint
    assert not open_table(write(path, "text,label\na,5\n"), "FILE").hint
    with pytest.raises(ConfigError, match="two columns have the same name: 5, 5; its first row looks like data"):
        list(open_table(write(path, "5,5\n1,2\n"), "FILE").batches(["5"]))
    with pytest.raises(ConfigError, match="columns names 3 columns, but FILE: .* begins with 2 cells"):
        open_table(path, "FILE", Form(columns=("a", "b", "c")))


def test_rows_that_are_none_are_found_with_their_lines(tmp_path):
    path = write(tmp_path / "a.csv", 'text,label\n"two\nlines",1\nonly\n\na,b,c\nfine,2,,\n')
    table = open_table(path, "FILE")
    (batch,) = table.batches(["text"])
    assert batch.columns["text"] == ["two\nlines", "", "", "fine"]
    assert where(table, {1: "is odd", **{batch.first + place: why for place, why in batch.problems.items()}}) == [
        "row 1: is odd (line 3)",
        "line 4: 1 cells; the header has 2",
        "line 6: 3 cells; the header has 2",
    ]
    path = write(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": \n[1]\n{"other": 1}\n')
    table = open_table(path, "FILE")
    (batch,) = table.batches(["text"])
    assert where(table, {batch.first + place: why for place, why in batch.problems.items()}) == [
        "line 3: invalid JSON: Expecting value at character 9",
        "line 4: [1] is not an object with a value for each column",
    ]
    assert batch.columns["text"] == ["a", None, None, None]


def test_missing_values_are_missing_whatever_their_type(tmp_path):
    frame = pandas.DataFrame(
        {
            "text": pandas.Series(["a", None, "b"], dtype="string"),
            "object": ["x", float("nan"), None],
            "number": [1.0, float("nan"), 3.5],
            "whole": pandas.Series([1, None, 3], dtype="Int64"),
            "truth": pandas.Series([True, None, False], dtype="boolean"),
            "kind": pandas.Categorical(["u", None, "v"]),
            "day": pandas.to_datetime(["2020-01-02", None, "2020-01-03"]),
            "small": np.array([3.7, np.nan, 1], dtype="float32"),
        }
    )
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True, date_format="iso")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv", index=False, na_rep="NaN")
    write(tmp_path / "c.jsonl", '{"text": NaN}\n{"text": null}\n{"text": "nan"}\n{}\n{"text": " "}\n{"text": "nano"}\n')
    for name in ("a.parquet", "a.jsonl", "a.csv", "b.csv"):
        table = open_table(tmp_path / name, "FILE")
        (batch,) = table.batches(table.columns)
        for column in table.columns:
            texts = Reading().texts(batch.columns[column]).values.to_pylist()
            assert (texts[0] is None, texts[1]) == (False, None), (name, column)
    table = open_table(tmp_path / "c.jsonl", "FILE")
    (batch,) = table.batches(["text"])
    assert Reading().texts(batch.columns["text"]).values.to_pylist() == [None] * 5 + ["nano"]
    assert Reading(missing=()).texts(batch.columns["text"]).values.to_pylist()[2] == "nan"


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ([1, -2, 10**30], ["1", "-2", str(10**30)]),
        ([1.0, 2.5, True], ["1.0", "2.5", "true"]),
        (pyarrow.array([3.7, 0.1], pyarrow.float32()), ["3.7", "0.1"]),
        (pyarrow.array([False, True]), ["false", "true"]),
        (pyarrow.array([b"caf\xc3\xa9"]), ["café"]),
        (pyarrow.array([datetime.date(2020, 1, 2)]), ["2020-01-02"]),
        (pyarrow.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        (pyarrow.array(["a"], pyarrow.large_string()), ["a"]),
        (pyarrow.array(["a"], pyarrow.string_view()), ["a"]),
    ],
)
def test_cells_of_other_types(given, texts):
    assert Reading().texts(given).values.to_pylist() == texts


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([{"a": 1}], "is an object"),
        ([["a", "b"]], 'is a list; set multiple to "join" or "first"'),
        (["\ud800"], "half a character"),
        (pyarrow.array([b"\xff"]), "is binary, and not UTF-8"),
        (pyarrow.array([{"a": 1}]), "is an object"),
        (pyarrow.array([["a"]]), "is a list"),
    ],
)
def test_cells_that_are_no_text(given, problem):
    found = Reading().texts(given)
    assert found.values.to_pylist() == [None]
    assert problem in found.problems[0]


def test_lists_are_joined_or_cut():
    given = [["a", "b"], ["c"], [], None, "d", ["e", None, 1]]
    assert Reading(multiple="join").texts(given).values.to_pylist() == ["a b", "c", None, None, "d", "e 1"]
    first = Reading(multiple="first").texts(given)
    assert first.values.to_pylist() == ["a", "c", None, None, "d", "e"]
    assert first.lists == {0: ["a", "b"], 5: ["e", "1"]}
    assert "list of lists" in Reading(multiple="join").texts([[["a"], ["b"]], ["x", ["y", "z"]]]).problems[1]


def test_only_the_columns_that_are_used_are_looked_at(tmp_path):
    rows = [{"text": f"t {n}", "label": "1", "when": {"deep": [n]}, "raw": b"\xff"} for n in range(3)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({**row, "raw": n}) + "\n" for n, row in enumerate(rows)))
    for name in ("a.parquet", "a.jsonl"):
        (batch,) = open_table(tmp_path / name, "FILE").batches(["text"])
        assert Reading().texts(batch.columns["text"]).values.to_pylist() == ["t 0", "t 1", "t 2"]


CSV = st.text(st.sampled_from('a",\n\r"b,'), max_size=14)


@settings(max_examples=300, deadline=None)
@given(text=CSV, width=st.integers(2, 4), few=st.integers(1, 3))
def test_the_first_cells_of_rows_are_those_that_a_csv_reader_finds(text, width, few):
    few = min(few, width - 1)
    dialect = {"delimiter": ",", "strict": True, "quoting": csv.QUOTE_MINIMAL}

    def found(rows) -> list:
        result = []
        try:
            for row in rows:
                if isinstance(row, Wrong):
                    return [*result, "wrong"]
                result.append(row)
        except csv.Error:
            result.append("wrong")
        return result

    expected = (row[:few] if len(row) == width else row for row in csv.reader(io.StringIO(text, newline=""), **dialect))
    assert found(first_cells(io.StringIO(text, newline=""), few, width, dialect)) == found(filter(None, expected))


def test_a_wide_file_is_read_like_a_narrow_one(tmp_path, monkeypatch):
    rows = ['1,"a, b",c', "2,d,e,", "3", "", '4,"two\nlines",f', "5,g,h,i", '6,"say ""so""",j', "7,k,l"]
    path = write(tmp_path / "a.csv", "\r\n".join(["id,text,label", *rows]))

    def found(columns):
        table = open_table(path, "FILE")
        (batch,) = table.batches(columns)
        return batch.columns, batch.problems, where(table, {batch.first + p: w for p, w in batch.problems.items()})

    narrow = [found(columns) for columns in (["text"], ["id"], ["text", "id", "other"], ["label"])]
    monkeypatch.setattr("seq2seq.data.tables.separated.WIDE", 1)
    assert [found(columns) for columns in (["text"], ["id"], ["text", "id", "other"], ["label"])] == narrow
    assert narrow[0][0] == {"text": ["a, b", "d", "", "two\nlines", "", 'say "so"', "k"]}
    assert narrow[0][2] == ["line 4: 1 cells; the header has 3", "line 8: 4 cells; the header has 3"]
    write(path, 'id,text,label\n1,a,b\n2,"c"d,e\n3,f,g\n')
    assert found(["id"])[0] == {"id": ["1", "", "3"]}
    assert found(["id"])[2] == ["line 3: ',' expected after '\"'"]
    write(path, 'id,text,label\n1,a,b\n2,"c\n3,f,g\n')
    with pytest.raises(ConfigError, match="in a row that begins on line 3"):
        found(["id"])
