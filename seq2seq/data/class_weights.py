"""Weights of the training rows that give every class of a task the same share of the loss: the key `class_weights`."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.utils.class_weight import compute_class_weight

from common.errors import ConfigError, shortened
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data.batches import TaskRows
from seq2seq.data.tasks import Task

MOST = 20  # weights that are printed of a task


def check_class_weights(arguments: DataTrainingArguments, tasks: Sequence[Task]) -> None:
    """Raise ConfigError if class_weights is set and a task to train on has no labels."""
    without = [task.name for task in tasks if task.targets is None]
    if without and arguments.class_weights is not None:
        hint = "set labels" if without == ["file"] else "train only on tasks with labels"
        raise ConfigError(
            f"class_weights is {arguments.class_weights!r}, but no labels are in {' and '.join(without)}; {hint}, "
            "or set class_weights to null"
        )


def with_class_weights(rows: TaskRows) -> TaskRows:
    """Return the tokenised rows with a further column of tokens, "weight", and print the weight of each class.

    Of n rows of k classes, a row of a class with m rows weighs n / (k * m): on average 1. Classes without rows do not
    count.
    """
    classes, of_row = np.unique(rows.texts["target"][:], return_inverse=True)
    weights = compute_class_weight("balanced", classes=np.arange(len(classes)), y=of_row)
    shown = [f"{shortened(str(name), 30)} {weight:.3g}" for name, weight in zip(classes, weights, strict=True)][:MOST]
    left = [f"and {len(classes) - MOST} more"] if len(classes) > MOST else []
    print(f"class weights of {rows.task.name}: {', '.join(shown + left)}")
    return replace(rows, tokens=rows.tokens.add_column("weight", weights[of_row].tolist()))
