"""A sweep of 12 cells that take a second each."""

import json
from collections import Counter
from pathlib import Path

from seq2seq.sweeps.records import read_records
from seq2seq.sweeps.work import STARTED
from tests.conftest import ROOT, TINY_RUN

KEYS = {name: value for name, value in TINY_RUN.items() if name not in ("task_name", "max_train_samples", "tt_rank")}
KEYS |= {"low_resource": 32, "eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
SWEEP = {
    "configurations": [
        {"name": "TT-LoRA", "file": str(ROOT / "configs/tt_lora.json"), "grid": {"tt_rank": [1, 2]}},
        {
            "name": "LoRA",
            "file": str(ROOT / "configs/lora.json"),
            "keys": {"lora_rank": 1, "print_num_parameters": False},
        },
    ],
    "tasks": ["vader-amazon"],
    "seeds": [1, 2],
    "keys": KEYS,
    "choose": {"space": {"learning_rate": [0.001, 0.01]}, "metric": "accuracy", "keys": {"low_resource": 16}},
}
CELLS = 12
OF_TIME = "seconds", "cpu_seconds", "memory_mib"


def written(directory: Path, **keys) -> Path:
    """The file of the small sweep, with other keys; None removes one."""
    content = {name: value for name, value in {**SWEEP, **keys}.items() if value is not None}
    content.setdefault("output_dir", str(directory / "out"))
    path = directory / "small.json"
    path.write_text(json.dumps(content))
    return path


def table_in(records: Path) -> dict[str, dict]:
    """The records in a file by cell, without what depends on the clock."""
    found = {}
    for record in read_records(records)[1]:
        assert record["cell"] not in found, "a cell is recorded twice"
        found[record["cell"]] = {name: value for name, value in record.items() if name not in OF_TIME}
    return found


def starts(out: Path) -> Counter[str]:
    """How often each cell was started, by its log."""
    logs = [*(out / "cells").rglob("*.log")]
    return Counter({log.stem: sum(line.startswith(STARTED) for line in log.read_text().splitlines()) for log in logs})
