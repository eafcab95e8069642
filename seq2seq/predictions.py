"""The scores and the predictions of a split, task by task."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.errors import warn_once
from common.files import replacing
from seq2seq import metrics
from seq2seq.classes import class_results
from seq2seq.data.batches import TaskRows
from seq2seq.data.tasks import Task
from seq2seq.layout import PREDICTIONS
from seq2seq.trainer import AdapterTrainer


def split_results(trainer: AdapterTrainer, split: str, parts: Sequence[TaskRows], directory: Path) -> dict:
    """Evaluate on a split and write its predictions.

    Returns the scores of each task, what was predicted for each of its classes if it has labels, and the average of
    the tasks, as in `results.json`.
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
            "data": {"name": task.data_name, "hash": rows.data_hash},
        }
        if f"{prefix}_average_metrics" in logged:
            tasks[task.name]["average_metrics"] = logged[f"{prefix}_average_metrics"]
        predictions = trainer.predictions.get(task.name)
        if predictions is None:
            continue
        references = rows.references()
        say_what_is_undefined(split, task, predictions, references)
        if task.targets is not None:
            tasks[task.name] |= class_results(predictions, task.right(predictions, references), task.targets)
        if trainer.args.should_save:
            trainer.check_directory()
            write_predictions(directory / PREDICTIONS / f"{split}-{task.name}.jsonl", rows, predictions)
    average = logged.get(f"{split}_average_metrics")
    return {"tasks": tasks} if average is None else {"tasks": tasks, "average_metrics": average}


def majority_baseline(rows: TaskRows) -> dict[str, float]:
    """Return the scores of always predicting the text that is right in the most rows."""
    if not rows.task.metrics:
        return {}
    references = rows.references()
    accepted = [[each] if isinstance(each, str) else each for each in rows.task.accepted(references)]
    most_frequent = Counter(text for texts in accepted for text in dict.fromkeys(texts)).most_common(1)[0][0]
    return rows.task.score([most_frequent] * len(rows), references)


def say_what_is_undefined(split: str, task: Task, predictions: Sequence[str], references: Mapping) -> None:
    """Warn of metrics that are 0 because they do not exist for these predictions."""
    if task.targets is None and task.score_range is None:
        return
    compared = task.compared(predictions, references)
    for name in task.metrics:
        reason = metrics.undefined(name, *compared)
        if reason is not None:
            warn_once(f"{split}: {name} of {task.name} is undefined, as {reason}; it is given as 0")


def write_predictions(path: Path, rows: TaskRows, predictions: Sequence[str]) -> None:
    """Write JSON lines with "source", "target", the task's reference fields and "prediction"."""
    with replacing(path, "output_dir") as unfinished, unfinished.open("w", encoding="utf-8") as file:
        columns = ["source", "target", *rows.task.reference_fields]
        for row, prediction in zip(rows.texts.select_columns(columns), predictions, strict=True):
            file.write(json.dumps({**row, "prediction": prediction}, ensure_ascii=False) + "\n")
