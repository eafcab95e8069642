"""Sentences with other words, of which a teacher can say what a backbone would otherwise never hear.

The augmentation of TinyBERT (Jiao et al. 2020, https://arxiv.org/abs/1909.10351, section 3.2).
"""

import random
from collections.abc import Iterable, Iterator

from seq2seq import sentence_encoder

COUNT = 8  # of a sentence
SHARE = 0.3  # of the words, which are replaced
SEED = 0


def variants(texts: Iterable[str]) -> Iterator[str]:
    """Yield COUNT variants of each text, in which a word may have become one that the sentence encoder holds similar.

    A word that is unknown to the encoder stays. The same texts have the same variants.
    """
    similar, rng = sentence_encoder.similar_words(), random.Random(SEED)

    def another(match) -> str:
        word = match.group()
        if word.lower() not in similar or rng.random() >= SHARE:
            return word
        drawn = rng.choice(similar[word.lower()])
        return drawn.capitalize() if word[0].isupper() else drawn

    for text in texts:
        for _ in range(COUNT):
            yield sentence_encoder.WORD.sub(another, text)
