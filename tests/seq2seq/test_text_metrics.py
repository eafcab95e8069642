"""ROUGE-L and chrF against the packages that papers use, and where those lie."""

import random
import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

from common.errors import ConfigError
from seq2seq.metrics import METRICS, metric_names
from seq2seq.text_metrics import words_of

RNG = random.Random(0)
WORDS = ["Bank", "river", "a", "the", "U.S.", "3.5%", "well-known", "it's", "x_y", "C++", "-", ""]
PREDICTED = [" ".join(RNG.choices(WORDS, k=RNG.randint(1, 12))) for _ in range(200)]
ACCEPTED = [[" ".join(RNG.choices(WORDS, k=RNG.randint(1, 12))) for _ in range(RNG.randint(1, 3))] for _ in range(200)]


def test_rouge_l_is_that_of_rouge_score():
    scorer = RougeScorer(["rougeL"])
    expected = [
        max(scorer.score(answer, text)["rougeL"].fmeasure for answer in answers)
        for text, answers in zip(PREDICTED, ACCEPTED, strict=True)
        if all(map(words_of, (text, *answers)))  # it gives 0 to texts without words, even to equal ones
    ]
    used = [row for row in zip(PREDICTED, ACCEPTED, strict=True) if all(map(words_of, (row[0], *row[1])))]
    assert 150 < len(used) < 200
    assert METRICS["rouge_l"](*zip(*used, strict=True)) == pytest.approx(100 * sum(expected) / len(expected))


def test_chrf_is_that_of_sacrebleu():
    columns = [[answers[n] if n < len(answers) else None for answers in ACCEPTED] for n in range(3)]
    expected = CHRF().corpus_score(PREDICTED, columns).score
    assert 20 < expected < 80
    assert METRICS["chrf"](PREDICTED, ACCEPTED) == pytest.approx(expected)
    firsts = [answers[0] for answers in ACCEPTED]
    assert METRICS["chrf"](PREDICTED, firsts) == pytest.approx(CHRF().corpus_score(PREDICTED, [firsts]).score)
    assert METRICS["chrf"](["-"], ["+"]) == 0


@pytest.mark.parametrize(
    ("text", "answer", "score"),
    [
        ("我爱你", "我爱你", 100),
        ("我爱你", "他爱你", 200 / 3),
        ("猫", "狗", 0),
        ("дом у реки", "дом", 50),
        ("कि", "की", 0),
        ("cafe\u0301", "café", 100),
        ("ไทย", "ไทย", 100),
        ("-", "+", 0),
        ("👍", "👍 ", 100),
        ("👍", "👎", 0),
        ("-", "well", 0),
    ],
)
def test_rouge_l_reads_every_script(text, answer, score):
    assert METRICS["rouge_l"]([text], [answer]) == pytest.approx(score)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    assert metric_names(["em", "exact_match", "rouge_l"]) == ["em", "exact", "rouge_l"]
    with pytest.raises(ConfigError, match="^sacrebleu not installed; in the clone, run pip install"):
        metric_names(["chrf"])
