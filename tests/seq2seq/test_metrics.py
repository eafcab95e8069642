import string
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn_metrics

from seq2seq import metrics
from seq2seq.data import get_task, task_names
from seq2seq.metrics import COMPARED, METRICS, post_process

LABELS = ("0", "1")
TEXTS = st.text(alphabet="aAbc the.,'é-", max_size=14)


def test_against_scikit_learn_and_scipy():
    rng = np.random.default_rng(0)
    wanted, predicted = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    numbers = rng.normal(size=200), rng.normal(size=200)
    assert METRICS["accuracy"](predicted, wanted) == pytest.approx(
        100 * sklearn_metrics.accuracy_score(wanted, predicted)
    )
    true_positives = np.sum((wanted == 1) & (predicted == 1))
    by_hand = 200 * true_positives / (np.sum(wanted == 1) + np.sum(predicted == 1))
    assert METRICS["f1"](predicted, wanted) == pytest.approx(by_hand)
    assert METRICS["matthews_correlation"](predicted, wanted) == pytest.approx(
        100 * np.corrcoef(predicted, wanted)[0, 1]
    )
    assert METRICS["pearson"](*numbers) == pytest.approx(100 * np.corrcoef(*numbers)[0, 1])
    ranks = [stats.rankdata(side) for side in numbers]
    assert METRICS["spearmanr"](*numbers) == pytest.approx(100 * np.corrcoef(*ranks)[0, 1])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=30))
def test_macro_f1_is_the_mean_over_the_classes_that_occur(pairs):
    """3 is a prediction that is no label."""
    scores = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(p == w == label for p, w in pairs)
        scores.append(2 * hits / (sum(p == label for p, _ in pairs) + sum(w == label for _, w in pairs)))
    predicted, wanted = np.array(pairs).T
    assert METRICS["f1_multiclass"](predicted, wanted) == pytest.approx(100 * sum(scores) / len(scores))


def test_a_prediction_that_is_no_label_is_wrong():
    predicted, wanted = post_process([" 1", "maybe", "", "0"], ["1", "1", "0", "1 "], LABELS)
    assert predicted.tolist() == [1, 0, 1, 0]
    assert wanted.tolist() == [1, 1, 0, 1]
    predicted, _ = post_process(["1", "", "3", "b", "2"], ["0", "1", "2", "0", "2"], ("0", "1", "2"))
    assert predicted.tolist() == [1, 3, 3, 3, 2]


def test_an_invalid_prediction_lowers_macro_f1_as_a_class_of_its_own():
    scores = get_task("superglue-cb").score(["0", "1", "?", "2"], {"target": ["0", "1", "1", "2"]})
    assert scores == {"f1_multiclass": pytest.approx(100 * (1 + 2 / 3 + 1 + 0) / 4), "accuracy": 75.0}


def test_a_prediction_that_is_no_number_is_below_the_range():
    given_, targets = ["x", "nan", "1.5", "inf", "1e400", "٣", ""], ["3.0", "-2.0", "1.0", "-1.0", "4.0", "3.0", "0.0"]
    predicted, wanted = post_process(given_, targets, None, (-4.0, 4.0))
    assert predicted.tolist() == [-5.6, -5.6, 1.5, -5.6, -5.6, 3.0, -5.6]
    assert wanted.tolist() == [3.0, -2.0, 1.0, -1.0, 4.0, 3.0, 0.0]
    assert post_process(["?"], ["3.0"], None, (0.0, 5.0))[0].tolist() == [-1.0]
    assert get_task("stsb").score(["no", "number", "?"], {"target": ["1.0", "2.0", "5.0"]})["pearson"] == 0.0


@pytest.mark.parametrize("predictions", [["1.0", "1.0"], ["1.0"], ["", "x"]])
def test_a_correlation_that_does_not_exist_is_0(predictions):
    references = {"target": ["0.2", "0.4"][: len(predictions)]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = get_task("vader-nyt-rating").score(predictions, references)
    assert scores == {"pearson": 0.0, "spearmanr": 0.0}


def test_numbers_beyond_all_measure_do_not_crash():
    scores = get_task("stsb").score(["1e308", "-1e308", "2.0"], {"target": ["0.2", "0.4", "1.0"]})
    assert all(-100 <= value <= 100 for value in scores.values())
    assert METRICS["matthews_correlation"](np.array([0, 0]), np.array([0, 1])) == 0.0


def slow_words(text: str) -> list[str]:
    """SQuAD's comparison, word by word."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def slow_f1(text: str, answer: str) -> float:
    left, right = slow_words(text), slow_words(answer)
    if not left or not right:
        return float(left == right)
    rest, shared = list(right), 0
    for word in left:
        if word in rest:
            rest.remove(word)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(left), shared / len(right)
    return 2 * precision * recall / (precision + recall)


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_answers_against_a_slow_reference(pairs):
    predicted, accepted = zip(*pairs, strict=True)
    f1 = np.mean([max(slow_f1(text, answer) for answer in answers) for text, answers in pairs])
    em = np.mean([any(slow_words(text) == slow_words(answer) for answer in answers) for text, answers in pairs])
    assert METRICS["text_f1"](predicted, accepted) == pytest.approx(100 * f1)
    assert METRICS["em"](predicted, accepted) == pytest.approx(100 * em)


@pytest.mark.parametrize(
    ("text", "accepted", "f1", "em"),
    [
        ("The Denver Broncos!", "denver broncos", 100, 100),
        ("a", ["the", "x"], 100, 100),
        ("", ["."], 100, 100),
        ("", "x", 0, 0),
        ("Rome", [""], 0, 0),
        ("in Rome in", ["Rome", "in Rome"], 80, 0),
        ("theatre", "atre", 0, 0),
        ("U.S.", "US", 100, 100),
    ],
)
def test_answers_by_hand(text, accepted, f1, em):
    assert METRICS["text_f1"]([text], [accepted]) == pytest.approx(f1)
    assert METRICS["em"]([text], [accepted]) == em


def test_a_group_is_right_when_all_of_it_is():
    predicted, wanted = np.array([1, 1, 0, 1, 0]), np.array([1, 0, 0, 1, 0])
    assert metrics.group_em(predicted, wanted, [7, 3, 3, 7, 9]) == pytest.approx(100 * 2 / 3)
    assert metrics.group_em(predicted, wanted, [7, 3, 9, 7, 3]) == pytest.approx(100 * 2 / 3)
    assert metrics.group_em(predicted, wanted, [7, 7, 7, 7, 7]) == 0


def test_scores_are_in_percent():
    references = {"target": ["1", "0", "0", "1"]}
    assert get_task("vader-movie").score(["1", "0", "1", "x"], references) == {"accuracy": 50.0}
    scores = get_task("mrpc").score(["1", "0", "1", "x"], references)
    assert scores == {"f1": pytest.approx(50.0), "accuracy": 50.0}
    assert get_task("cola").score(["0", "1", "1", "0"], references) == {"matthews_correlation": -100.0}


def test_every_metric_says_what_it_compares():
    assert set(COMPARED) == set(METRICS)
    assert {name for task in task_names() for name in get_task(task).metrics} <= set(METRICS)
