"""Sentences without labels, the text of pre-training: of the rated sets, and of packages with English text."""

from collections.abc import Iterable

from common.errors import ConfigError
from seq2seq.data.english_text import SOURCES, prose
from seq2seq.data.splits import normalise
from seq2seq.data.tasks import SPLITS
from seq2seq.data.vader import FILES, read_set, rows_of
from seq2seq.data.variants import variants

RATED = "rated"  # the sentences of all rated sets, without their ratings
VARIANTS = "variants"  # of those of the training split, with other words


def check_sources(sources: dict) -> None:
    """Raise ConfigError unless `sources` are one or more known names, each with a whole number from 1 on."""
    known = [RATED, VARIANTS, *SOURCES]
    wrong = [name for name in sources if name not in known]
    if wrong or not sources:
        what = f"{wrong[0]!r} is unknown" if wrong else "it is empty"
        raise ConfigError(f"text_sources: {what}; allowed: {', '.join(known)}")
    for name, times in sources.items():
        if not isinstance(times, int) or isinstance(times, bool) or times < 1:
            raise ConfigError(f"text_sources: {name} is {times!r}; it must be a whole number, at least 1")


def rated_sentences(split: str) -> dict[str, list[str]]:
    """Return set name -> the sentences of a split."""
    result = {}
    for name in FILES:
        sentences, _ = read_set(name)
        result[name] = [sentences[row] for row in rows_of(name, split)]
    return result


def held_out() -> set[str]:
    """Return the normalised sentences of the validation and test splits of all rated sets."""
    parts = [rated_sentences(split) for split in SPLITS[1:]]
    return {normalise(text) for part in parts for texts in part.values() for text in texts}


def sentences_of(source: str) -> Iterable[str]:
    """Return the sentences of "variants", or of one of `english_text.SOURCES`."""
    if source != VARIANTS:
        return prose(source)
    return variants(text for texts in rated_sentences("train").values() for text in texts)


def unlabelled_text(split: str, sources: Iterable[str] = (RATED,)) -> dict[str, list[str]]:
    """Return set or source -> its sentences. Only the rated sets have a validation and a test split.

    split: "train", "validation" or "test".
    sources: "rated", "variants", and names in `english_text.SOURCES`.
    The training split has each text once, by its words in lower case, and none that a rated set holds out; the numbers
    of texts that are left out are printed.
    """
    if split != "train":
        return rated_sentences(split)
    texts: dict[str, Iterable[str]] = {}
    for source in sources:
        texts |= rated_sentences(split) if source == RATED else {source: sentences_of(source)}
    forbidden, seen, kept = held_out(), set(), {}
    left_out = repeated = 0
    for name, sentences in texts.items():
        kept[name] = []
        for sentence in sentences:
            words = normalise(sentence)
            if words in forbidden:
                left_out += 1
            elif words in seen:
                repeated += 1
            else:
                seen.add(words)
                kept[name].append(sentence)
    sizes = ", ".join(f"{name} {len(sentences):,}" for name, sentences in kept.items())
    print(f"unlabelled text: {sizes} sentences; left out: {left_out} of a held-out split, {repeated} repetitions")
    return kept
