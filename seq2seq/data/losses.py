"""What of the texts does not reach the model: what is truncated, and characters that the tokenizer does not know."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from common.errors import ConfigError, shortened

EXAMPLE = 60  # characters of a text in a message


@dataclass(frozen=True)
class Losses:
    """What is lost in the rows of one task in one split.

    rows: their number.
    sources, targets: the numbers of truncated ones.
    garbled: the number of sources with characters that the tokenizer does not know.
    characters, lost: of all sources, and those that the tokenizer does not know.
    alike: the number of rows whose sources differ from another's only after their end.
    lines: a warning about each kind of loss, with an example.
    """

    rows: int
    sources: int
    targets: int
    garbled: int
    characters: int
    lost: int
    alike: int
    lines: tuple[str, ...]


def losses_of(texts: Dataset, tokens: Dataset, limits: tuple[int, int]) -> Losses:
    """Return what is lost between texts and tokens.

    texts: "source" and "target". tokens: what `tokenised` returns for them. limits: max_source_length and
        max_target_length.
    """
    count = len(texts)
    lengths, target_lengths, unknown = (
        np.asarray(tokens[name][:]) for name in ("source_tokens", "target_tokens", "lost")
    )
    long, wordy, garbled = lengths > limits[0], target_lengths > limits[1], unknown > 0
    characters = int(pc.sum(pc.utf8_length(texts.with_format("arrow")["source"][:])).as_py() or 0)
    alike = _alike(texts, tokens, np.flatnonzero(long)) if long.sum() > count / 2 else 0

    def line(mask: np.ndarray, what: str, column: str) -> list[str]:
        if not mask.any():
            return []
        example = shortened(repr(texts[int(mask.argmax())][column]), EXAMPLE)
        return [f"{mask.sum():,} of {count:,} rows {what}, such as {example}"]

    lines = [
        *line(
            long,
            f"have more than max_source_length {limits[0]} tokens (up to {lengths.max():,}), and lose the rest",
            "source",
        ),
        *line(wordy, f"have targets of more than max_target_length {limits[1]} tokens, and lose the rest", "target"),
        *line(garbled, f"have characters that the tokenizer does not know ({unknown.sum():,} in all)", "source"),
    ]
    return Losses(
        count,
        int(long.sum()),
        int(wordy.sum()),
        int(garbled.sum()),
        characters,
        int(unknown.sum()),
        alike,
        tuple(lines),
    )


def _alike(texts: Dataset, tokens: Dataset, rows: np.ndarray) -> int:
    """Return how many of these rows have the tokens of another whose source is different."""
    sources: dict[tuple[int, ...], list[str]] = {}
    for ids, source in zip(tokens.select(rows)["input_ids"], texts.select(rows)["source"], strict=True):
        sources.setdefault(tuple(ids), []).append(source)
    return sum(len(group) for group in sources.values() if len(set(group)) > 1)


def check_alike(losses: Losses, place: str, limit: int) -> None:
    """Raise ConfigError if truncation makes more than half of the rows equal to others. place: for the message."""
    if losses.alike > losses.rows / 2:
        raise ConfigError(
            f"{place}: {losses.alike:,} of {losses.rows:,} rows become the same tokens as another row, as what "
            f"distinguishes them stands after max_source_length {limit}; raise it, or move what differs, such as the "
            "question, to the front of the source (source_template)"
        )
