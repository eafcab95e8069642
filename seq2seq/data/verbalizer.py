"""The words that the model says for labels.

Verbalizers: Schick and Schütze 2021, https://arxiv.org/abs/2001.07676.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain

from common.errors import ConfigError, shortened

LONGEST = 4  # tokens of a word for a user's label
NUMBERS = 10_000  # that are tried where no part of a label will do


class Verbalizer:
    """A word for each label, which the tokenizer encodes and decodes without loss; no two labels have the same.

    words: label -> word.
    """

    def __init__(self, words: Mapping[str, str]):
        self.words = dict(words)
        self._labels = {word: label for label, word in words.items()}

    @property
    def renamed(self) -> dict[str, str]:
        """The labels that have another word than themselves."""
        return {label: word for label, word in self.words.items() if word != label}

    def label_of(self, text: str) -> str:
        """Return the label whose word a generated text is; any other text as it is, if it cannot pass for a label."""
        text = text.strip()
        return self._labels.get(text, f"{text} (no word of a label)" if text in self.words else text)


def verbalizer_of(labels: Sequence[str], tokenizer, given: Mapping[str, str], longest: int) -> Verbalizer:
    """Return the words of labels: those given, else the label itself, a part of it, or a number.

    given: label -> word, which may lack labels.
    longest: the largest number of tokens of a word that is found, without the end token.
    Raises ConfigError if a given word cannot be said or stands for two labels, or if there are not enough words.
    """
    words: dict[str, str] = {}
    for label in filter(given.__contains__, labels):
        if not isinstance(given[label], str):
            raise ConfigError(f"labels: the word for {label!r} is {given[label]!r}; it must be a text")
        word, said = given[label], spoken(given[label], tokenizer)
        if said != word or not word:
            raise ConfigError(
                f"labels: the word {word!r} for {label!r} becomes {said!r} when it is tokenised and decoded"
            )
        if word in words.values():
            other = next(name for name, taken in words.items() if taken == word)
            raise ConfigError(f"labels: {other!r} and {label!r} have the same word, {word!r}; give each its own")
        words[label] = word
    taken, numbers = set(words.values()), map(str, range(NUMBERS))
    for label in labels:  # first those that stand for themselves
        if label not in words and label not in taken and _fits(label, tokenizer, longest):
            words[label] = label
            taken.add(label)
    for label in labels:
        if label in words:
            continue
        candidates = chain(_parts_of(label, tokenizer), numbers)
        word = next((word for word in candidates if word not in taken and _fits(word, tokenizer, longest)), None)
        if word is None:
            raise ConfigError(
                f"there is no word for the label {shortened(repr(label), 60)}: the tokenizer has too few distinct "
                f"words of one to {longest} tokens for {len(labels):,} labels; use fewer labels, or another tokenizer"
            )
        words[label] = word
        taken.add(word)
    return Verbalizer({label: words[label] for label in labels})


def _parts_of(label: str, tokenizer) -> Iterator[str]:
    """Yield the label, and parts of it, the best first."""
    plain = " ".join(label.split())
    for text in (plain, plain.lower(), *re.findall(r"\w+", plain.lower())):
        yield text
        yield spoken(text, tokenizer)


def _fits(word: str, tokenizer, longest: int) -> bool:
    """True if a word has few enough tokens and survives them."""
    return bool(word) and len(encode([word], tokenizer)[0]) <= longest + 1 and spoken(word, tokenizer) == word


def spoken(text: str, tokenizer) -> str:
    """Return what is left of a text that is encoded and decoded."""
    return decode(encode([text], tokenizer), tokenizer)[0].strip()


def encode(texts: Sequence[str], tokenizer) -> list[list[int]]:
    """Return the tokens of texts, with the end token. What looks like a special token in them is text."""
    if not texts:
        return []
    return tokenizer(list(texts), split_special_tokens=True, verbose=False, return_attention_mask=False)["input_ids"]


def decode(tokens: Iterable[Sequence[int]], tokenizer) -> list[str]:
    """Return the texts of tokens."""
    return tokenizer.batch_decode(list(tokens), skip_special_tokens=True)
