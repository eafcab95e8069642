import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from seq2seq.data import get_task
from seq2seq.metrics import METRICS, post_process

LABELS = ("0", "1")


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
    assert METRICS["pearson"](*numbers) == pytest.approx(100 * np.corrcoef(*numbers)[0, 1])
    ranks = [stats.rankdata(side) for side in numbers]
    assert METRICS["spearmanr"](*numbers) == pytest.approx(100 * np.corrcoef(*ranks)[0, 1])


def test_a_prediction_that_is_no_label_is_wrong():
    predicted, wanted = post_process([" 1", "maybe", "", "0"], ["1", "1", "0", "1 "], LABELS)
    assert predicted.tolist() == [1, 0, 1, 0]
    assert wanted.tolist() == [1, 1, 0, 1]


def test_a_prediction_that_is_no_number_is_far_off():
    predicted, wanted = post_process(["x", "nan", "1.5", "inf"], ["3.0", "-2.0", "1.0", "-1.0"], None, (-4.0, 4.0))
    assert predicted.tolist() == [-4.0, 4.0, 1.5, 4.0]
    assert wanted.tolist() == [3.0, -2.0, 1.0, -1.0]


def test_a_correlation_that_does_not_exist_is_0():
    assert get_task("vader-nyt-rating").score(["1.0", "1.0"], ["0.2", "0.4"]) == {"pearson": 0.0, "spearmanr": 0.0}
    assert get_task("vader-nyt-rating").score(["1.0"], ["0.2"]) == {"pearson": 0.0, "spearmanr": 0.0}


def test_scores_are_in_percent():
    assert get_task("vader-movie").score(["1", "0", "1", "x"], ["1", "0", "0", "1"]) == {"accuracy": 50.0}
    scores = get_task("mrpc").score(["1", "0", "1", "x"], ["1", "0", "0", "1"])
    assert scores == {"f1": pytest.approx(50.0), "accuracy": 50.0}
