"""predict.py: what is read, answered and written, from a run, an adapter and a merged model; one line for errors."""

import csv
import io
import json
import shutil
import sys
from pathlib import Path

import pandas
import pyarrow
import pytest
import torch
from huggingface_hub import constants
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from predict import main
from seq2seq.data.tables import open_table
from seq2seq.label_scores import label_log_probabilities
from seq2seq.predicting import predict
from seq2seq.predictor import Predictor
from tests.conftest import TINY_RUN
from tests.methods import ONE_A_SITE, adapted, config_for
from tests.seq2seq.tickets import TEXTS, tickets, write_csv
from third_party.models.t5 import T5ForConditionalGeneration

LABELS = list(TEXTS)
OWN = {
    **TINY_RUN,
    "model_config": None,
    "tokenizer_name": None,
    "task_name": "file",
    "source_template": "ticket: {text}",
    "labels": LABELS,
    "on_bad_rows": "skip",
    "do_train": True,
    "max_train_samples": 64,
}


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_backbone):
    """The directory of a run on tickets, with its merged model in `merged`. Tests read it only."""
    from run_seq2seq import main as run

    directory = tmp_path_factory.mktemp("trained")
    path = write_csv(directory / "tickets.csv", tickets(200))
    keys = {**OWN, "use_TTLoRA": True, "tt_rank": 2, "learning_rate": 0.01, "merge_and_export": True}
    keys |= {"train_file": str(path), "output_dir": str(directory / "run"), "model_name_or_path": str(tiny_backbone)}
    (directory / "tickets.json").write_text(json.dumps(keys))
    assert run([str(directory / "tickets.json")]) == 0
    return directory / "run"


@pytest.fixture
def new(tmp_path) -> Path:
    """A file without labels, some of whose texts are missing."""
    rows = [{name: cell for name, cell in row.items() if name != "label"} for row in tickets(60, seed=1)]
    return write_csv(tmp_path / "new.csv", rows)


def read(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path, dtype=str, keep_default_na=False)


def test_every_row_is_there_in_order_with_its_columns(trained, new, capsys):
    assert main([str(trained), str(new), "--scores"]) == 0
    out = new.with_name("new.predictions.csv")
    before, after = read(new), read(out)
    pandas.testing.assert_frame_equal(after[before.columns], before)
    assert list(after.columns) == [*before.columns, "prediction", *(f"score_{label}" for label in LABELS)]
    missing = before.text.str.strip().isin(["", "NaN", "null"])
    assert missing.sum() > 0
    assert (after.prediction == "").equals(missing)
    scores = after[~missing].filter(like="score_").astype(float)
    assert scores.sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-6)
    assert list(scores.idxmax(axis=1)) == ["score_" + label for label in after.prediction[~missing]]
    printed = capsys.readouterr()
    assert f"60 rows in {out}\n{missing.sum()} rows without a prediction" in printed.out
    assert f"{missing.sum()} of 60 rows cannot be used: row" in printed.err


def test_the_card_has_scores_template_and_labels(trained, tmp_path):
    results = json.loads((trained / "results.json").read_text())["splits"]["test"]["tasks"]["file"]
    card = (trained / "README.md").read_text()
    score = results["scores"]["accuracy"]
    assert f"| tickets | test | {results['rows']} | accuracy | {score:.2f} |" in card
    assert '`"ticket: {text}"`' in card
    assert all(label in card for label in LABELS)
    T5ForConditionalGeneration.from_pretrained(trained).export_peft(tmp_path)
    assert f"| accuracy | {score:.2f} |" in (tmp_path / "README.md").read_text()


def test_an_adapter_of_the_hub(trained, tmp_path, monkeypatch):
    place = tmp_path / "models--me--tickets"
    shutil.copytree(trained, place / "snapshots" / ("a" * 40), ignore=shutil.ignore_patterns("merged", "checkpoint*"))
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    sources = ["ticket: close my account", "ticket: it is slow"]
    expected = Predictor(trained).answer(sources)
    found = Predictor("me/tickets").answer(sources)
    assert found.texts == expected.texts
    assert torch.equal(found.probabilities, expected.probabilities)


def test_the_scores_are_those_of_the_words_as_whole_answers(trained, new):
    predictor = Predictor(trained)
    sources = ["ticket: close my account", "ticket: How do I change sync, and the dashboard?" * 3]
    found = predictor.answer(sources).probabilities
    for source, row in zip(sources, found, strict=True):
        ids = predictor.tokenizer(source, return_tensors="pt").input_ids
        logs = []
        for label in LABELS:
            labels = predictor.tokenizer(predictor.task.verbalizer.words[label], return_tensors="pt").input_ids
            with torch.no_grad():
                logs.append(-predictor.model(input_ids=ids, labels=labels).loss * labels.shape[1])
        torch.testing.assert_close(row, torch.stack(logs).softmax(0), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("case", ONE_A_SITE)
def test_label_scores_of_every_site_are_those_without_a_cache(case, tiny_config):
    model = adapted(tiny_config, config_for(case))
    words = [[5, 1], [5, 6, 1], [7, 8, 9, 1], [10, 1]]
    batch = {"input_ids": torch.randint(3, 100, (3, 9)), "attention_mask": torch.ones(3, 9, dtype=torch.long)}
    batch["attention_mask"][1, 5:] = 0
    found = label_log_probabilities(model, batch, words)
    for column, word in enumerate(words):
        labels = torch.tensor([word] * 3)
        with torch.no_grad():
            logs = model(**batch, labels=labels).logits.log_softmax(-1)
        wanted = logs.gather(-1, labels.unsqueeze(-1)).sum((1, 2))
        torch.testing.assert_close(found[:, column], wanted, atol=1e-4, rtol=1e-5)


def test_a_run_its_adapter_and_its_merged_model_answer_alike(trained, new, tmp_path):
    model = T5ForConditionalGeneration.from_pretrained(trained)
    model.save_adapter(tmp_path / "adapter")
    model.merge_and_export(tmp_path / "merged")
    answers = []
    for directory in (trained, trained / "merged", tmp_path / "adapter", tmp_path / "merged"):
        predict(directory, new, tmp_path / "out.csv", scores=True, overwrite=True)
        answers.append(read(tmp_path / "out.csv"))
    for other in answers[1:]:
        assert list(other.prediction) == list(answers[0].prediction)
        scores = [frame.filter(like="score_").replace("", "0").astype(float) for frame in (other, answers[0])]
        pandas.testing.assert_frame_equal(*scores, atol=1e-5)


def test_a_file_with_targets_is_scored_like_the_run(trained, capsys):
    results = json.loads((trained / "results.json").read_text())["splits"]["test"]["tasks"]["file"]["scores"]
    rows = [json.loads(line) for line in (trained / "predictions/test-file.jsonl").read_text().splitlines()]
    path = trained.parent / "again.jsonl"
    path.write_text("".join(json.dumps({"text": r["source"][8:], "label": r["target"]}) + "\n" for r in rows))
    done = predict(trained, path, trained.parent / "again.out.jsonl", overwrite=True)
    assert done.scored == len(rows)
    answers = [json.loads(line) for line in (trained.parent / "again.out.jsonl").read_text().splitlines()]
    assert {row["prediction"] for row in answers} <= set(LABELS)
    generated = [row["prediction"] in LABELS for row in rows]
    if all(generated):
        assert done.scores["accuracy"] == pytest.approx(results["accuracy"])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# What the writers of those files can write, or their readers can tell from other cells.
ALLOWED = {"csv": TEXT, "tsv": TEXT, "jsonl": TEXT | st.none(), "parquet": TEXT | st.none()}


@pytest.mark.parametrize("kind", ALLOWED)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_table_of_texts_survives(kind, data, trained, predictor, tmp_path, monkeypatch):
    rows = data.draw(st.lists(st.tuples(TEXT, ALLOWED[kind]), min_size=1, max_size=6))
    frame = [{"text": text, "other": other} for text, other in rows]
    path, out = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame))
    elif kind == "parquet":
        parquet.write_table(
            pyarrow.Table.from_pylist(frame, pyarrow.schema(dict.fromkeys(frame[0], pyarrow.string()))), path
        )
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            delimiter = "," if kind == "csv" else "\t"
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows([["text", "other"], *rows])
    monkeypatch.setattr("seq2seq.predicting.Predictor", lambda *arguments: predictor)
    done = predict(trained, path, out, overwrite=True)
    table = open_table(out, "FILE")
    found = [
        row
        for batch in table.batches(["text", "other"])
        for row in zip(*map(list, batch.columns.values()), strict=True)
    ]
    found = [tuple(cell.as_py() if isinstance(cell, pyarrow.Scalar) else cell for cell in row) for row in found]
    assert found == rows
    assert done.rows == len(rows)


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(trained)


def test_standard_input_and_output(trained, new, monkeypatch, capsysbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(new.read_bytes())))
    assert main([str(trained), "-", "--scores"]) == 0
    printed = capsysbinary.readouterr()
    predict(trained, new, scores=True)
    assert printed.out == new.with_name("new.predictions.csv").read_bytes()
    assert printed.err.startswith(b"warning: FILE: standard input: ")
    assert b"60 rows\n" in printed.err
    assert len(list(csv.reader(io.StringIO(printed.out.decode())))) == 61


def test_a_broken_row_ends_a_stream_and_what_was_written_is_whole(trained, tmp_path, capsys):
    path = tmp_path / "new.jsonl"
    lines = [json.dumps({"text": f"crash {n}"}) for n in range(10)]
    path.write_text("\n".join([*lines[:7], '{"text": ', *lines[7:]]))
    assert main([str(trained), str(path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    kept = tmp_path / "new.predictions.unfinished.jsonl"
    assert f"line 8: invalid JSON: Expecting value at character 9; the 7 rows before it are in {kept}" in line
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [row["text"] for row in rows] == [f"crash {n}" for n in range(7)]
    assert all(row["prediction"] in LABELS for row in rows)
    assert not (tmp_path / "new.predictions.jsonl").exists()


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ("other\na\n", [], ["source_template is 'ticket: {text}', but {text} is not the name of a column", "other"]),
        ("text,prediction\na,b\n", [], ["has a column 'prediction' already; rename it"]),
        ("text\n", [], ["holds no rows"]),
        ("", [], ["holds no rows"]),
        ("text\na\n", ["--task", "mrpc"], ["--task is 'mrpc'", "was trained on: file"]),
        ("text\na\n", ["--format", "xml"], ["--format is 'xml'; allowed: csv, tsv"]),
        ("text\na\n", ["--encoding", "x"], ["encoding is 'x', which is unknown"]),
        ("text\na\n", ["--out", "/no/such/dir\0/x"], ["--out: ", "cannot be written"]),
        ("text\na\n", ["--score"], ["unrecognized arguments: --score"]),
        ("text\ncaf\xe9\x81\n".encode("latin-1"), [], ["is not UTF-8", "set encoding"]),
    ],
)
def test_wrong_input_is_one_line(content, arguments, words, trained, tmp_path, capsys):
    path = tmp_path / "new.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main([str(trained), str(path), *arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert all(word in line for word in words), line
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_an_output_that_exists_is_kept(trained, new, capsys):
    out = new.with_name("new.predictions.csv")
    out.write_text("mine")
    assert main([str(trained), str(new)]) == 2
    assert "exists; set --overwrite" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert main([str(trained), str(new), "--out", str(new), "--overwrite"]) == 2
    assert "the file that is read" in capsys.readouterr().err
    assert main([str(trained), str(new), "--overwrite"]) == 0
    assert len(read(out)) == 60


def test_models_that_cannot_answer(trained, new, tmp_path, tiny_t5, capsys):
    for directory, words in ((tmp_path / "no", "is not a directory"), (tiny_t5, "has no data_config.json")):
        assert main([str(directory), str(new)]) == 2
        assert words in capsys.readouterr().err
    copy = tmp_path / "copy"
    T5ForConditionalGeneration.from_pretrained(trained).save_adapter(copy)
    config = json.loads((copy / "data_config.json").read_text())
    (copy / "data_config.json").write_text(json.dumps({**config, "tasks": ["mrpc"]}))
    assert main([str(copy), str(new)]) == 2
    assert "data_config.json was changed after it was written" in capsys.readouterr().err


def test_several_tasks_and_free_text(run_main, tiny_backbone, tmp_path, capfd):
    keys = {**TINY_RUN, "do_train": True, "model_config": None, "tokenizer_name": None}
    keys["model_name_or_path"] = str(tiny_backbone)
    (tmp_path / "a.json").write_text(json.dumps({**keys, "tensor_train_adapters": True, "train_task_adapters": True}))
    status, errors, out = run_main(tmp_path / "a.json", task_name=["vader-amazon", "vader-amazon-rating"])
    assert status == 0, errors
    path = tmp_path / "new.csv"
    path.write_text("sentence\na fine film\n\nit broke\n")
    assert main([str(out), str(path)]) == 2
    assert "choose one with --task: vader-amazon, vader-amazon-rating" in capfd.readouterr().err
    assert predict(out, path, task="vader-amazon").rows == 2
    assert set(read(tmp_path / "new.predictions.csv").prediction) <= {"0", "1"}
    assert predict(out, path, task="vader-amazon-rating", overwrite=True).rows == 2
    assert main([str(out), str(path), "--task", "vader-amazon-rating", "--scores", "--overwrite"]) == 2
    assert "--scores is for tasks with labels" in capfd.readouterr().err
