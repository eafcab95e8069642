"""Which of the values that were tried is best on validation."""

import math
from collections.abc import Sequence
from typing import Any

LOSS = "loss"


def score_of(record: dict[str, Any], metric: str, split: str = "validation") -> float:
    """Return a score of a cell on a split, higher for better; NaN if it has none."""
    if "scores" not in record:
        return math.nan
    if metric == "average_metrics":
        value = record["average"].get(split)
    else:
        found = [score for name, score in record["scores"].get(split, {}).items() if name.split("/")[-1] == metric]
        value = None if None in found or not found else sum(found) / len(found)
    if value is None or not math.isfinite(value):
        return math.nan
    return -value if metric == LOSS else value


def best(records: Sequence[dict[str, Any]], metric: str) -> dict[str, Any] | None:
    """Return the chosen values of the record that is best on validation, the first of equals; None if none scores."""
    scored = [record for record in records if not math.isnan(score_of(record, metric))]
    return max(scored, key=lambda record: score_of(record, metric))["chosen"] if scored else None


def said(record: dict[str, Any]) -> str:
    """Return the result of a cell in words."""
    if "failed" in record:
        return f"failed: {record['failed']}"
    if "stopped" in record:
        return f"stopped after {record['stopped']['evaluations']} evaluations"
    return ", ".join(f"{split} {value:.2f}" for split, value in record["average"].items() if value is not None)
