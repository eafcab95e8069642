"""Directories of runs, as run_seq2seq.py leaves them, for report.py."""

import csv
import json
import math

BACKBONE = 10_000
HISTORY = [
    {"step": 10, "loss": 2.0, "epoch": 0.5},
    {"step": 20, "loss": 1.0},
    {"step": 20, "eval_average_metrics": 60.0},
    {"step": 30, "loss": math.nan},
]


def split(accuracies: dict, **facts) -> dict:
    """Scores by task on a split; `facts` stand in the entry of each task."""
    shared = {"majority": {"accuracy": 50.0}, **facts}
    tasks = {
        task: {"scores": {"accuracy": score, "loss": 0.5}, "average_metrics": score, **shared}
        for task, score in accuracies.items()
    }
    return {"tasks": tasks, "average_metrics": sum(accuracies.values()) / len(accuracies)}


def write_run(
    directory, name="lora", *, scores=70.0, seed=1, trainable=100, low_resource=None, config=(), facts=(), **results
):
    """A finished run; `scores` on the task "movie", or by task, with `facts` about each task."""
    directory.mkdir(parents=True)
    scores = scores if isinstance(scores, dict) else {"movie": scores}
    content = {
        "experiment_name": name,
        "method": f"{name} method",
        "splits": {"test": split(scores, **dict(facts))},
        "parameters": {"trainable": trainable, "total": BACKBONE + trainable, "backbone": BACKBONE},
        "seed": seed,
        "low_resource": low_resource,
        "seconds": 100.0 + seed,
        "peak_memory_mib": 500.0,
        "output_dir": str(directory),
        "history": HISTORY,
        **results,
    }
    resolved = {"experiment_name": name, "seed": seed, "output_dir": str(directory), "low_resource": low_resource}
    (directory / "results.json").write_text(json.dumps(content))
    (directory / "resolved_config.json").write_text(json.dumps({**resolved, **dict(config)}))


def write_diverged(directory, content):
    directory.mkdir(parents=True)
    (directory / "resolved_config.json").write_text("{}")
    (directory / "diverged.json").write_text(content if isinstance(content, str) else json.dumps(content))


def rows_of(directory) -> list[dict]:
    with open(directory / "report.csv", newline="") as file:
        return list(csv.DictReader(file))
