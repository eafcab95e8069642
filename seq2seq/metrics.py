"""Scores of predictions against targets, in percent."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

from common.requirements import check_installed
from seq2seq.text_metrics import chrf, em, exact, rouge_l, text_f1

NO_LABEL = -1  # the number of a prediction that is not a label


def post_process(predictions: Sequence[str], targets: Sequence, labels=None, score_range=None):
    """Turn texts into what the metrics compare: label numbers, numbers, or the texts themselves.

    targets: the wanted texts; without labels and score_range, each may also be a list of accepted texts.
    labels: the allowed targets. Any other prediction counts as the wrong label if there are two labels, else as
        NO_LABEL.
    score_range: (lowest, highest). A prediction that is not a number becomes one that is a fifth of the range below
        the lowest: -1 for STS-B's 0 to 5, as in T5's own evaluation.
    """
    if labels is not None:
        predicted, wanted = label_numbers(predictions, labels), label_numbers(targets, labels)
        if NO_LABEL in wanted:
            raise ValueError(f"a target is none of the labels {labels!r}")
        if len(labels) == 2:
            predicted = np.where(predicted == NO_LABEL, 1 - wanted, predicted)
        return predicted, wanted
    if score_range is not None:
        lowest, highest = score_range
        numbers = [to_number(text) for text in predictions]
        below = lowest - (highest - lowest) / 5
        return np.array([below if n is None else n for n in numbers]), np.array([float(text) for text in targets])
    return predictions, targets


def label_numbers(texts: Iterable[str], labels: Sequence[str]) -> np.ndarray:
    """Return the number of each text among the labels, or NO_LABEL; all white space is one space, as in tokenizers."""
    number = {" ".join(label.split()): n for n, label in enumerate(labels)}
    return np.array([number.get(" ".join(text.split()), NO_LABEL) for text in texts])


def to_number(text: str) -> float | None:
    """Return the number that a text states, or None; "1_000", "nan", "infinity" and "1e400" state none."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None


def accuracy(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return 100 * float(np.mean(predicted == wanted))


def f1(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """F1 of label 1, for two labels."""
    return 100 * float(f1_score(wanted, predicted, zero_division=0))


def f1_multiclass(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Mean F1 over the labels that occur. A prediction that is no label counts as missed by the label it should be."""
    labels = [label for label in np.union1d(predicted, wanted) if label != NO_LABEL]
    return 100 * float(f1_score(wanted, predicted, labels=labels, average="macro", zero_division=0))


def matthews_correlation(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return 100 * float(matthews_corrcoef(wanted, predicted))


def pearson(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return _correlation(stats.pearsonr, _of_moderate_size(predicted), _of_moderate_size(wanted))


def spearmanr(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return _correlation(stats.spearmanr, predicted, wanted)


def _correlation(function, predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Return a correlation in percent, or 0 if it is undefined."""
    if _without_variance(predicted, wanted):
        return 0.0
    value = float(function(predicted, wanted).statistic)
    return 100 * value if math.isfinite(value) else 0.0


def _of_moderate_size(values: np.ndarray) -> np.ndarray:
    """Return the values, divided by a power of two so that their squares do not overflow."""
    return np.ldexp(values, -max(int(np.frexp(np.abs(values).max())[1]), 0))


def undefined(name: str, predicted: np.ndarray, wanted: np.ndarray) -> str | None:
    """Return why a metric of label numbers or numbers does not exist here and counts as 0, or None if it does."""
    if name == "f1" and 1 not in predicted and 1 not in wanted:
        return "the second label neither occurs nor is predicted"
    if name in ("matthews_correlation", "pearson", "spearmanr"):
        return _without_variance(predicted, wanted)
    return None


def _without_variance(predicted: np.ndarray, wanted: np.ndarray) -> str | None:
    if len(wanted) < 2:
        return "there is only one row"
    for what, values in (("prediction", predicted), ("target", wanted)):
        if np.all(values == values[0]):
            return f"every {what} is the same"
    return None


def group_em(predicted: np.ndarray, wanted: np.ndarray, groups: Sequence) -> float:
    """Share of groups in which every row is predicted correctly."""
    right: dict = {}
    for group, is_right in zip(groups, predicted == wanted, strict=True):
        right[group] = right.get(group, True) and bool(is_right)
    return 100 * float(np.mean(list(right.values())))


METRICS = {
    "accuracy": accuracy,
    "f1": f1,
    "f1_multiclass": f1_multiclass,
    "matthews_correlation": matthews_correlation,
    "pearson": pearson,
    "spearmanr": spearmanr,
    "exact": exact,
    "em": em,
    "text_f1": text_f1,
    "rouge_l": rouge_l,
    "chrf": chrf,
}

# What each metric compares: label numbers, numbers, or texts.
COMPARED = dict.fromkeys(METRICS, "labels") | dict.fromkeys(("pearson", "spearmanr"), "numbers")
COMPARED |= dict.fromkeys(("exact", "em", "text_f1", "rouge_l", "chrf"), "texts")

OLDER_NAMES = {"exact_match": "exact"}
PACKAGES = {"rouge_l": "rapidfuzz", "chrf": "sacrebleu"}  # imported only for these


def metric_names(names: Sequence[str]) -> list[str]:
    """Return the present names of metrics. Raises ConfigError if the package that computes one is not installed."""
    names = [OLDER_NAMES.get(name, name) for name in names]
    check_installed([PACKAGES[name] for name in names if name in PACKAGES])
    return names
