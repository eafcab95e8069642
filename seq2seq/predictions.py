"""The scores and the predictions of a split, task by task."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from common.files import replacing
from seq2seq.data.batches import TaskRows
from seq2seq.layout import PREDICTIONS
from seq2seq.trainer import AdapterTrainer


def split_results(trainer: AdapterTrainer, split: str, parts: Sequence[TaskRows], directory: Path) -> dict:
    """Evaluate on a split and write its predictions.

    Returns the scores of each task and their average, as in `results.json`.
    """
    logged, tasks = trainer.evaluate(rows=parts, metric_key_prefix=split), {}
    for rows in parts:
        task = rows.task
        prefix = split if len(parts) == 1 else f"{split}_{task.name}"
        names = [name for name in (*task.metrics, "loss") if f"{prefix}_{name}" in logged]
        tasks[task.name] = {
            "scores": {name: logged[f"{prefix}_{name}"] for name in names},
            "majority": majority_baseline(rows),
            "rows": len(rows),
        }
        if f"{prefix}_average_metrics" in logged:
            tasks[task.name]["average_metrics"] = logged[f"{prefix}_average_metrics"]
        if task.name in trainer.predictions and trainer.args.should_save:
            trainer.check_directory()
            path = directory / PREDICTIONS / f"{split}-{task.name}.jsonl"
            write_predictions(path, rows, trainer.predictions[task.name])
    average = logged.get(f"{split}_average_metrics")
    return {"tasks": tasks} if average is None else {"tasks": tasks, "average_metrics": average}


def majority_baseline(rows: TaskRows) -> dict[str, float]:
    """Return the scores of always predicting the most frequent target."""
    if not rows.task.metrics:
        return {}
    references = rows.references()
    most_frequent = Counter(references["target"]).most_common(1)[0][0]
    return rows.task.score([most_frequent] * len(rows), references)


def write_predictions(path: Path, rows: TaskRows, predictions: Sequence[str]) -> None:
    """Write JSON lines with "source", "target", the task's reference fields and "prediction"."""
    with replacing(path, "output_dir") as unfinished, unfinished.open("w", encoding="utf-8") as file:
        columns = ["source", "target", *rows.task.reference_fields]
        for row, prediction in zip(rows.texts.select_columns(columns), predictions, strict=True):
            file.write(json.dumps({**row, "prediction": prediction}, ensure_ascii=False) + "\n")
