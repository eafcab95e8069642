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


@given(st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 2)), min_size=1, max_size=30))
def test_macro_f1_is_the_mean_over_the_classes_that_occur(pairs):
    """-1 is a prediction that is no label: it lowers the recall of the label that it should be, and nothing else."""
    scores = []
    for label in {label for pair in pairs for label in pair} - {-1}:
        hits = sum(p == w == label for p, w in pairs)
        scores.append(2 * hits / (sum(p == label for p, _ in pairs) + sum(w == label for _, w in pairs)))
    predicted, wanted = np.array(pairs).T
    assert METRICS["f1_multiclass"](predicted, wanted) == pytest.approx(100 * sum(scores) / len(scores))


def test_a_prediction_that_is_no_label_is_wrong():
    predicted, wanted = post_process([" 1", "maybe", "", "0"], ["1", "1", "0", "1 "], LABELS)
    assert predicted.tolist() == [1, 0, 1, 0]
    assert wanted.tolist() == [1, 1, 0, 1]
    predicted, _ = post_process(["1", "", "3", "b", "2"], ["0", "1", "2", "0", "2"], ("0", "1", "2"))
    assert predicted.tolist() == [1, -1, -1, -1, 2]
    predicted, _ = post_process(["a  b", "a\nb ", "ab", "A b"], ["a  b"] * 4, ("a  b", "B", "C"))
    assert predicted.tolist() == [0, 0, -1, -1]
    with pytest.raises(ValueError, match="none of the labels"):
        post_process(["0"], ["2"], LABELS)


def test_an_invalid_prediction_is_no_class_of_its_own_in_macro_f1():
    scores = get_task("superglue-cb").score(["0", "1", "?", "2"], {"target": ["0", "1", "1", "2"]})
    assert scores == {"f1_multiclass": pytest.approx(100 * (1 + 2 / 3 + 1) / 3), "accuracy": 75.0}


def test_a_prediction_that_is_no_number_is_below_the_range():
    numbers = {"1.5": 1.5, " -1e2 ": -100.0, "+.5": 0.5, "٣": 3.0}
    others = ["x", "nan", "inf", "Infinity", "1e400", "1_000", "1,000", "0x1", "1 2", ""]
    predicted, wanted = post_process([*numbers, *others], ["-2.0"] * 14, None, (-4.0, 4.0))
    assert predicted.tolist() == [*numbers.values(), *[-5.6] * len(others)]
    assert wanted.tolist() == [-2.0] * 14
    assert post_process(["?"], ["3.0"], None, (0.0, 5.0))[0].tolist() == [-1.0]
    assert get_task("stsb").score(["no", "number", "?"], {"target": ["1.0", "2.0", "5.0"]})["pearson"] == 0.0


@pytest.mark.parametrize("predictions", [["1.0", "1.0"], ["1.0"], ["", "x"]])
def test_a_correlation_that_does_not_exist_is_0(predictions):
    references = {"target": ["0.2", "0.4"][: len(predictions)]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = get_task("vader-nyt-rating").score(predictions, references)
    assert scores == {"pearson": 0.0, "spearmanr": 0.0}


def test_numbers_beyond_all_measure_are_numbers_all_the_same():
    target = ["0.2", "0.4", "1.0"]
    scores = get_task("stsb").score(["1e308", "-1e308", "2.0"], {"target": target})
    assert scores["pearson"] == pytest.approx(100 * np.corrcoef([1, -1, 2e-308], [0.2, 0.4, 1.0])[0, 1])
    assert METRICS["matthews_correlation"](np.array([0, 0]), np.array([0, 1])) == 0.0


def slow_words(text: str) -> list[str]:
    """SQuAD's comparison, word by word."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in bare.split() if word not in ("a", "an", "the")]


def slow_f1(text: str, answer: str) -> float:
    left, right = slow_words(text), slow_words(answer)
    if not left or not right:
        return float(text.strip() == answer.strip())
    rest, shared = list(right), 0
    for word in left:
        if word in rest:
            rest.remove(word)
            shared += 1
    if shared == 0:
        return 0.0
    precision, recall = shared / len(left), shared / len(right)
    return 2 * precision * recall / (precision + recall)


def slow_em(text: str, answer: str) -> bool:
    left, right = slow_words(text), slow_words(answer)
    return left == right and (left != [] or text.strip() == answer.strip())


@given(st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_answers_against_a_slow_reference(pairs):
    predicted, accepted = zip(*pairs, strict=True)
    f1 = np.mean([max(slow_f1(text, answer) for answer in answers) for text, answers in pairs])
    em = np.mean([any(slow_em(text, answer) for answer in answers) for text, answers in pairs])
    assert METRICS["text_f1"](predicted, accepted) == pytest.approx(100 * f1)
    assert METRICS["em"](predicted, accepted) == pytest.approx(100 * em)


@pytest.mark.parametrize(
    ("text", "accepted", "f1", "em"),
    [
        ("The Denver Broncos!", "denver broncos", 100, 100),
        ("a", ["the", "x"], 0, 0),
        ("", ["."], 0, 0),
        ("-", ["+"], 0, 0),
        (" -", ["x", "- "], 100, 100),
        ("The", "the", 0, 0),
        ("the", ["cat", "the"], 100, 100),
        ("the", "the cat", 0, 0),
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


@pytest.mark.parametrize(("text", "answer"), [("-", "+"), ("3", "-3"), ("15", "1.5"), ("C", "C++"), ("The", "the")])
def test_a_sign_makes_a_different_answer(text, answer):
    assert METRICS["exact"]([text, answer, f" {text}\n"], [answer, [text, answer], text]) == pytest.approx(200 / 3)


def test_what_is_undefined_is_said():
    numbers = np.array([1.0, 2.0]), np.array([3.0, 3.0])
    assert metrics.undefined("pearson", *numbers) == "every target is the same"
    assert metrics.undefined("spearmanr", *numbers[::-1]) == "every prediction is the same"
    assert metrics.undefined("pearson", numbers[0][:1], numbers[1][:1]) == "there is only one row"
    assert metrics.undefined("pearson", numbers[0], numbers[0]) is None
    nothing, something = np.array([0, 0]), np.array([0, 1])
    assert metrics.undefined("f1", nothing, nothing) is not None
    assert metrics.undefined("f1", nothing, something) is metrics.undefined("accuracy", nothing, nothing) is None
    assert metrics.undefined("matthews_correlation", nothing, something) == "every prediction is the same"


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
