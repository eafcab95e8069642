"""Scores of predicted texts against target texts, in percent."""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import stats
from sklearn.metrics import f1_score, matthews_corrcoef

PUNCTUATION = str.maketrans("", "", string.punctuation)
Accepted = str | Sequence[str]  # one accepted answer, or all of them


def post_process(predictions: Sequence[str], targets: Sequence[str], labels=None, score_range=None):
    """Turn texts into what the metrics compare: label numbers, numbers, or the texts themselves.

    labels: the allowed targets. Any other prediction counts as the wrong label if there are two labels, else as a
        class of its own, len(labels).
    score_range: (lowest, highest). A prediction that is not a number becomes one that is a fifth of the range below
        the lowest: -1 for STS-B's 0 to 5, as in T5's own evaluation.
    """
    predictions, targets = [p.strip() for p in predictions], [t.strip() for t in targets]
    if labels is not None:
        number = {label: i for i, label in enumerate(labels)}
        wanted = [number[t] for t in targets]
        wrong = [1 - w if len(labels) == 2 else len(labels) for w in wanted]
        predicted = [number.get(p, w) for p, w in zip(predictions, wrong, strict=True)]
        return np.array(predicted), np.array(wanted)
    if score_range is not None:
        wanted = [float(t) for t in targets]
        lowest, highest = score_range
        predicted = [_to_number(p, lowest - (highest - lowest) / 5) for p in predictions]
        return np.array(predicted), np.array(wanted)
    return np.array(predictions), np.array(targets)


def _to_number(text: str, otherwise: float) -> float:
    try:
        number = float(text)
    except ValueError:
        return otherwise
    return number if math.isfinite(number) else otherwise


def accuracy(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return 100 * float(np.mean(predicted == wanted))


def f1(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """F1 of label 1, for two labels."""
    return 100 * float(f1_score(wanted, predicted, zero_division=0))


def f1_multiclass(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Mean F1 over the classes that occur, including the class of predictions that are not a label."""
    return 100 * float(f1_score(wanted, predicted, average="macro", zero_division=0))


def matthews_correlation(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return 100 * float(matthews_corrcoef(wanted, predicted))


def pearson(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return _correlation(stats.pearsonr, predicted, wanted)


def spearmanr(predicted: np.ndarray, wanted: np.ndarray) -> float:
    return _correlation(stats.spearmanr, predicted, wanted)


def _correlation(function, predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Return a correlation in percent, or 0 if it is undefined: one side is constant or its variance overflows."""
    if len(wanted) < 2 or np.all(predicted == predicted[0]) or np.all(wanted == wanted[0]):
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(function(predicted, wanted).statistic)
    return 100 * value if math.isfinite(value) else 0.0


def em(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """Share of predictions that match an accepted answer, ignoring case, punctuation and articles."""
    return _best_of(lambda text, answer: normalised_words(text) == normalised_words(answer), predicted, accepted)


def exact_match(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """Share of predictions that are an accepted answer, sign by sign but for spaces at the ends."""
    return _best_of(str.__eq__, predicted, accepted)


def text_f1(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """Mean over the predictions of the word F1 against the best-matching accepted answer.

    As in SQuAD (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250).
    """
    return _best_of(_word_f1, predicted, accepted)


def _best_of(function, predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    best = []
    for text, answers in zip(predicted, accepted, strict=True):
        answers = [answers] if isinstance(answers, str) else answers
        best.append(max(float(function(text, answer)) for answer in answers))
    return 100 * float(np.mean(best))


def normalised_words(text: str) -> list[str]:
    """Return the words of an answer in lower case, without punctuation and articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split()


def _word_f1(text: str, answer: str) -> float:
    words, wanted = normalised_words(text), normalised_words(answer)
    if not words or not wanted:
        return float(words == wanted)
    return 2 * (Counter(words) & Counter(wanted)).total() / (len(words) + len(wanted))


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
    "em": em,
    "exact": exact_match,
    "text_f1": text_f1,
}

# What each metric compares: label numbers, numbers, or texts.
COMPARED = dict.fromkeys(METRICS, "labels") | dict.fromkeys(("pearson", "spearmanr"), "numbers")
COMPARED |= dict.fromkeys(("em", "exact", "text_f1"), "texts")
