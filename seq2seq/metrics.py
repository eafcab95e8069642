"""Scores of predicted texts against target texts, in percent."""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score


def post_process(predictions: Sequence[str], targets: Sequence[str], labels=None, score_range=None):
    """Turn texts into what the metrics compare: label numbers, numbers, or the texts themselves.

    labels: the allowed targets. A prediction that is none of them becomes a label that is not the target: the opposite
    where there are two. score_range: (lowest, highest); a prediction that is no number becomes the end of the range
    further from the target.
    """
    predictions, targets = [p.strip() for p in predictions], [t.strip() for t in targets]
    if labels is not None:
        number = {label: i for i, label in enumerate(labels)}
        wanted = [number[t] for t in targets]
        predicted = [number.get(p, (w + 1) % len(labels)) for p, w in zip(predictions, wanted, strict=True)]
        return np.array(predicted), np.array(wanted)
    if score_range is not None:
        wanted = [float(t) for t in targets]
        predicted = [_to_number(p, w, *score_range) for p, w in zip(predictions, wanted, strict=True)]
        return np.array(predicted), np.array(wanted)
    return np.array(predictions), np.array(targets)


def _to_number(text: str, target: float, lowest: float, highest: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isfinite(number):
        return number
    return lowest if target > (lowest + highest) / 2 else highest


def accuracy(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return 100 * float(np.mean(predicted == wanted))


def f1(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """F1 of label 1 of two."""
    return 100 * float(f1_score(wanted, predicted, zero_division=0))


def pearson(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return _correlation(stats.pearsonr, predicted, wanted)


def spearmanr(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return _correlation(stats.spearmanr, predicted, wanted)


def _correlation(function, predicted: np.ndarray, wanted: np.ndarray) -> float:
    """A correlation that does not exist, because one side is constant, counts as 0."""
    if len(wanted) < 2 or np.ptp(predicted) == 0 or np.ptp(wanted) == 0:
        return 0.0
    return 100 * float(function(predicted, wanted).statistic)


METRICS = {"accuracy": accuracy, "f1": f1, "pearson": pearson, "spearmanr": spearmanr}
