"""The examples run as they are, on files of one's own, and answer bad input in one line."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from peft import PeftConfig

FOLDER = Path(__file__).parent.parent / "examples"
NAMES = ("causal_lm", "bert_classification")


@pytest.fixture
def example(monkeypatch, capsys, tmp_path):
    """Run an example in an empty folder; returns its status and what it printed, with the last line of stderr."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def run(name: str, *options: str) -> tuple[int, str, str]:
        with torch.random.fork_rng():
            status = importlib.import_module("shared").run(importlib.import_module(name).main, list(options))
        out, err = capsys.readouterr()
        return status, out, err.strip().splitlines()[-1] if err.strip() else ""

    return run


def figures(out: str, name: str) -> tuple[float, float]:
    """The figures before and after of one line."""
    (line,) = [line for line in out.splitlines() if line.startswith(f"held-out {name}")]
    return float(line.split()[3].rstrip(",")), float(line.split()[5])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_trains_and_comes_back(name, example):
    status, out, _ = example(name, "--output", "mine", "--steps", "60")
    assert status == 0
    assert "trainable params: " in out
    assert "loaded again, the adapter computes the same\n" in out
    before, after = figures(out, "loss")
    assert after < before - 0.2
    assert PeftConfig.from_pretrained("mine").peft_type == "TT_LORA"
    if name == "bert_classification":
        assert figures(out, "accuracy")[1] > 0.9


@pytest.mark.parametrize("method", ["meta_tt", "tt_adapter"])
def test_files_of_ones_own(method, example, tmp_path):
    rows = [{"text": f"{word} {k}", "label": label} for k in range(4) for word, label in (("yes", 1), ("no", 0))]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "rows.csv").write_text('text,label\n"two\nlines",a\n' + "one,b\ntwo,a\n" * 3)
    (tmp_path / "mine.txt").write_text("a text of my own, which goes on. " * 60)
    options = ("--method", method, "--r", "2", "--steps", "2", "--output", "mine")
    for name, file in zip((*NAMES, NAMES[1]), ("mine.txt", "rows.jsonl", "rows.csv"), strict=True):
        status, out, _ = example(name, "--file", file, *options)
        assert status == 0
        assert "the adapter computes the same" in out
        assert PeftConfig.from_pretrained("mine").peft_type == method.upper()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("causal_lm", ["--file", "nowhere.txt"], "--file nowhere.txt cannot be read as UTF-8 text"),
        ("causal_lm", ["--file", "empty"], "--file empty is empty"),
        ("causal_lm", ["--file", "bytes"], "--file bytes cannot be read as UTF-8 text"),
        ("causal_lm", ["--file", "short"], "at least 128 are needed"),
        ("causal_lm", ["--model", "nobody/nothing"], "--model nobody/nothing cannot be loaded"),
        ("causal_lm", ["--targets", "nothing"], "not found in the base model"),
        ("causal_lm", ["--r", "0"], "--r 0 .*r is 0; it must be"),
        ("causal_lm", ["--steps", "0"], "--steps is 0"),
        ("causal_lm", ["--output", "short"], "--output short is a file"),
        ("bert_classification", ["--file", "short"], "allowed: .csv, .jsonl"),
        ("bert_classification", ["--file", "names.csv"], "row 1 lacks text or label"),
        ("bert_classification", ["--file", "one.csv"], r"9 rows with labels \['b'\]"),
        ("bert_classification", ["--file", "half.jsonl"], "is damaged"),
        ("bert_classification", ["--targets", "embeddings"], "must be a linear layer"),
    ],
)
def test_bad_input_is_answered_in_one_line(name, options, message, example, tmp_path):
    contents = {"empty": "\n", "short": "hello", "names.csv": "text,lab\na,b\n", "half.jsonl": '{"text"'}
    for file, text in (contents | {"one.csv": "text,label\n" + "a,b\n" * 9}).items():
        (tmp_path / file).write_text(text)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    status, _, line = example(name, *options)
    assert status == 2
    assert line.startswith("error: ")
    assert re.search(message, line)
