"""Training batches in parts of rows of similar length: the same sums, with less padding to compute.

A batch is as long as its longest row, so in batches of random order about half of what is computed is padding. Rows do
not depend on each other, and the loss of a step is a sum over its target tokens: the gradients of the parts add up to
that of the batch, up to rounding, unless dropout draws random numbers for each part.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch

SPLITTABLE = {"input_ids", "attention_mask", "labels", "weight", "task"}
WORTH = 192  # padding tokens that a cut must save, as each part is one more pass through the model's modules


def parts_of(batch: Mapping[str, Any], worth: int = WORTH) -> list[dict[str, Any]]:
    """Return the batch in parts, or as it is if its rows are of several tasks or have a loss of their task's own.

    batch: what PaddingCollator makes.
    worth: the number of padding tokens that each cut must save.
    """
    if not SPLITTABLE.issuperset(batch) or isinstance(batch.get("task"), list):
        return [dict(batch)]
    lengths = batch["attention_mask"].sum(1)
    order = torch.argsort(lengths, stable=True)
    bounds = [0, *cuts(lengths[order].tolist(), worth), len(order)]
    if len(bounds) == 2:
        return [dict(batch)]
    return [_rows(batch, order[start:end]) for start, end in pairwise(bounds)]


def cuts(lengths: Sequence[int], worth: int) -> list[int]:
    """Return where to cut rows, sorted by length, so that each cut saves at least `worth` tokens of padding.

    >>> cuts([4, 4, 4, 100, 100], worth=50)
    [3]
    """
    saved = [n * (lengths[-1] - lengths[n - 1]) for n in range(1, len(lengths))]
    if not saved or max(saved) < worth:
        return []
    cut = saved.index(max(saved)) + 1
    return [*cuts(lengths[:cut], worth), cut, *(cut + n for n in cuts(lengths[cut:], worth))]


def _rows(batch: Mapping[str, Any], rows: torch.Tensor) -> dict[str, Any]:
    """Return these rows, without the columns that are padding in all of them."""
    part = {name: value[rows] if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    source = int(part["attention_mask"].sum(1).max())
    target = int((part["labels"] != -100).sum(1).max())
    ends = {"input_ids": source, "attention_mask": source, "labels": target}
    return part | {name: part[name][:, :end] for name, end in ends.items()}
