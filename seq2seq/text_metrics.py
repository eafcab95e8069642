"""Scores of predicted texts against free target texts, in percent.

ROUGE-L: Lin 2004, https://aclanthology.org/W04-1013. chrF: Popovic 2015, https://aclanthology.org/W15-3049.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

PUNCTUATION = str.maketrans("", "", string.punctuation)
# Scripts that put no spaces between words: Thai to Tibetan, Burmese, Khmer, kana, and the blocks of Chinese characters.
NO_SPACES = re.compile(
    "([\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)
Accepted = str | Sequence[str]  # one accepted answer, or all of them


def exact(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """Share of predictions that are an accepted answer, sign by sign but for spaces at the ends."""
    return _best_of(_same, predicted, accepted)


def em(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """Share of predictions that match an accepted answer by SQuAD's rules: case, punctuation and articles are ignored.

    Two texts of which nothing else is left, such as "-" and "+" or "The" and "the", are compared as in `exact`.
    """
    return _best_of(_same_words, predicted, accepted)


def text_f1(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """Mean over the predictions of the word F1 against the best-matching accepted answer.

    As in SQuAD (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250), but for texts without words; see `em`.
    """
    return _best_of(_word_f1, predicted, accepted)


def rouge_l(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """Mean over the predictions of ROUGE-L's F1 against the best-matching accepted answer.

    F1 of the longest common subsequence of words, over the whole text, without stemming. Words are runs of letters and
    digits of any script, in lower case; in scripts without spaces every character is one. Two texts without words are
    compared as in `exact`.
    """
    from rapidfuzz.distance import LCSseq  # imported here, as few runs need it

    def f1(text: str, answer: str) -> float:
        words, wanted = words_of(text), words_of(answer)
        if not words or not wanted:
            return _same(text, answer)
        return 2 * LCSseq.similarity(words, wanted) / (len(words) + len(wanted))

    return _best_of(f1, predicted, accepted)


def chrf(predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    """chrF2 of all predictions together, as sacrebleu computes it: up to 6 characters, case and punctuation count.

    N-grams are summed over the rows, with the best-matching accepted answer of each, before F is taken.
    """
    from sacrebleu.metrics import CHRF

    answers = [[each] if isinstance(each, str) else list(each) for each in accepted]
    most = max(map(len, answers))
    columns = [[each[min(n, len(each) - 1)] for each in answers] for n in range(most)]  # a repeated answer adds nothing
    return CHRF().corpus_score(list(predicted), columns).score


def words_of(text: str) -> list[str]:
    """Return the words that ROUGE compares; for ASCII text those of the package rouge-score."""
    text = unicodedata.normalize("NFC", text.lower())
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return NO_SPACES.sub(r" \1 ", kept).split()


def normalised_words(text: str) -> list[str]:
    """Return the words of an answer in lower case, without punctuation and articles."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(PUNCTUATION)).split()


def _best_of(function: Callable[[str, str], float], predicted: Sequence[str], accepted: Sequence[Accepted]) -> float:
    best = []
    for text, answers in zip(predicted, accepted, strict=True):
        answers = [answers] if isinstance(answers, str) else answers
        best.append(max(float(function(text, answer)) for answer in answers))
    return 100 * float(np.mean(best))


def _same(text: str, answer: str) -> bool:
    return text.strip() == answer.strip()


def _same_words(text: str, answer: str) -> bool:
    words, wanted = normalised_words(text), normalised_words(answer)
    return words == wanted if words or wanted else _same(text, answer)


def _word_f1(text: str, answer: str) -> float:
    words, wanted = normalised_words(text), normalised_words(answer)
    if not words or not wanted:
        return float(_same(text, answer))
    return 2 * (Counter(words) & Counter(wanted)).total() / (len(words) + len(wanted))
