"""docs/tasks.md says what the code does, and its example runs."""

import json
import re

import pytest

from seq2seq.data import get_task, task_names
from tests.conftest import ROOT, TINY_RUN

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


def test_the_example_of_own_data_runs(run_main, tmp_path, monkeypatch):
    header, *rows = block("csv").splitlines()
    lines = [row.replace("chair", f"chair {n}").replace("lamp", f"lamp {n}") for n in range(40) for row in rows]
    (tmp_path / "reviews.csv").write_text("\n".join([header, *lines]) + "\n")
    (tmp_path / "own.json").write_text(block("json"))
    monkeypatch.chdir(tmp_path)
    keys = {**TINY_RUN, "task_name": "file", "max_train_samples": None, "num_train_epochs": 2}
    status, errors, out = run_main(tmp_path / "own.json", **keys)
    assert status == 0, errors
    tested = json.loads((out / "results.json").read_text())["splits"]["test"]["tasks"]["file"]
    assert set(tested["scores"]) == {"accuracy", "f1", "loss"}
    assert [entry["label"] for entry in tested["classes"]] == tested["confusion"]["labels"] == ["bad", "good"]
    assert sum(map(sum, tested["confusion"]["matrix"])) == tested["rows"]
    lines = (out / "predictions/test-file.jsonl").read_text().splitlines()
    assert re.match(
        r"review: (Bright, and it lasts|It broke .*)\. product: (lamp|chair) \d+", json.loads(lines[0])["source"]
    )
