"""docs/tasks.md says what the code does, and its example runs."""

import csv
import io
import json
import re

import pytest

from predict import main as answer
from seq2seq.data import get_task, task_names
from seq2seq.predictor import Predictor
from tests.conftest import ROOT
from tests.seq2seq.tickets import SHARES, TEXTS, tickets, write_csv

TEXT = (ROOT / "docs/tasks.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in TEXT.splitlines() if line.startswith("| `")]
TABLE = {row[0].strip("`"): row for row in ROWS}


@pytest.mark.parametrize("name", [name for name in task_names() if not re.match("vader|file|span|distillation", name)])
def test_the_table_has_every_published_task(name):
    task = get_task(name)
    _, source, labels, words, metrics, _ = TABLE[name]
    assert metrics == ", ".join(task.metrics)
    assert re.findall(r"(\w+): \.\.", source) == list(task.fields or re.findall(r"(\w+): \.\.", source))
    if task.labels:
        assert labels == ", ".join(task.labels)
        assert words == ", ".join(task.words)
    else:
        assert not words


def block(language: str) -> str:
    return re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[1]


# So that it trains in seconds. The walk itself takes a minute.
SHORTER = {"max_train_samples": 960, "max_test_samples": 60, "num_train_epochs": 1, "per_device_train_batch_size": 16}
SHORTER |= {"learning_rate": 0.02, "disable_tqdm": True}


@pytest.mark.slow
def test_the_walk_from_a_messy_file_to_predictions(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert block("csv").splitlines()[0] == "id,subject,text,label"
    write_csv(tmp_path / "tickets.csv", tickets(3000))
    unlabelled = [{name: cell for name, cell in row.items() if name != "label"} for row in tickets(300, seed=1)]
    new = write_csv(tmp_path / "new.csv", unlabelled)
    (tmp_path / "tickets.json").write_text(block("json"))
    walk = TEXT.split("## Your own data")[1]
    dry, train, predict = re.findall(r"^python (?:run_seq2seq|predict)\.py (.*)$", walk, re.MULTILINE)[:3]

    config, *switches = dry.split()
    status, errors, out = run_main(tmp_path / config, dry_run=True, **SHORTER)
    assert (status, switches) == (0, ["--dry_run"])
    assert any("of 3,000 rows cannot be used: row" in line and "skipped" in line for line in errors)
    data = json.loads((out / "dry_run.json").read_text())["data"]["train"]["tickets"]
    assert data["rows"] == 960
    assert list(data["labels"]) == sorted(TEXTS)
    assert len(data["examples"]) == 10
    status, errors, out = run_main(tmp_path / train, output_dir=str(tmp_path / "outputs/tickets"), **SHORTER)
    assert status == 0, errors
    assert answer(predict.split()) == 0
    files = new, tmp_path / "new.predictions.csv"
    before, after = (
        list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))) for path in files
    )
    assert [{name: row[name] for name in before[0]} for row in after] == before
    missing = [row["text"].strip() in ("", "NaN", "null") for row in before]
    assert [row["prediction"] == "" for row in after] == missing
    answered = [row for row in after if row["prediction"]]
    rarest = min(TEXTS, key=dict(zip(TEXTS, SHARES, strict=True)).get)
    assert rarest in [row["prediction"] for row in answered]
    for row in answered:
        scores = {label: float(row[f"score_{label}"]) for label in TEXTS}
        assert sum(scores.values()) == pytest.approx(1, abs=1e-5)
        assert max(scores, key=scores.get) == row["prediction"]

    # Where the run itself generated a label for a test row, it is the most probable one.
    rows = [json.loads(line) for line in (out / "predictions/test-file.jsonl").read_text().splitlines()]
    found = Predictor(out).answer([row["source"] for row in rows]).texts
    pairs = [(row["prediction"], text) for row, text in zip(rows, found, strict=True) if row["prediction"] in TEXTS]
    assert len(pairs) > len(rows) / 2
    assert all(generated == text for generated, text in pairs)
