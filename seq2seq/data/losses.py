"""What of the texts does not reach the model: what is truncated, and what the tokenizer does not know."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from datasets import Dataset

from common.errors import ConfigError, shortened
from seq2seq.data.verbalizer import decode

EXAMPLE = 60  # characters of a text in a message
LOOKED_AT = 1000  # targets that are decoded


@dataclass(frozen=True)
class Losses:
    """What is lost in the rows of one task in one split.

    rows: their number.
    sources, targets: the numbers of truncated ones.
    characters, unknown: of all sources, and those that the tokenizer does not know.
    alike: the number of rows whose sources differ from another's only after their end.
    lines: a warning about each kind of loss, with an example.
    """

    rows: int
    sources: int
    targets: int
    characters: int
    unknown: int
    alike: int
    lines: tuple[str, ...]


def losses_of(texts: Dataset, tokens: Dataset, limits: tuple[int, int], free: bool, tokenizer) -> Losses:
    """Return what is lost between texts and tokens.

    texts: "source" and "target".
    tokens: what `tokenised` returns for them.
    limits: max_source_length and max_target_length.
    free: True if targets are texts that answers must equal.
    """
    counts = {name: np.asarray(tokens[name][:]) for name in tokens.column_names if name not in ("input_ids", "labels")}
    long, wordy = counts["source_tokens"] > limits[0], counts["target_tokens"] > limits[1]
    unknown, unsaid = counts["source_unknown"], counts["target_unknown"]
    characters = int(pc.sum(pc.utf8_length(texts.with_format("arrow")["source"][:])).as_py() or 0)
    what = "that the tokenizer does not know"
    lines = [
        *_line(texts, "source", long, f"have more than max_source_length {limits[0]} tokens and lose the rest"),
        *_line(texts, "target", wordy, f"have targets of more than max_target_length {limits[1]} tokens"),
        *_line(texts, "source", unknown > 0, f"have characters {what} ({unknown.sum():,} in all)"),
        *_line(texts, "target", unsaid > 0, f"have targets with characters {what}"),
    ]
    if free:
        lines += _changed(texts, tokens, np.flatnonzero(~wordy & (unsaid == 0)), tokenizer)
    alike = _alike(texts, tokens, np.flatnonzero(long)) if long.sum() > len(texts) / 2 else 0
    return Losses(len(texts), int(long.sum()), int(wordy.sum()), characters, int(unknown.sum()), alike, tuple(lines))


def _line(texts: Dataset, column: str, mask: np.ndarray, what: str) -> list[str]:
    """Return a warning about the rows in a mask, with an example; none if there are none."""
    if not mask.any():
        return []
    example = shortened(repr(texts[int(mask.argmax())][column]), EXAMPLE)
    return [f"{mask.sum():,} of {len(texts):,} rows {what}, such as {example}"]


def _changed(texts: Dataset, tokens: Dataset, rows: np.ndarray, tokenizer) -> list[str]:
    """Return a warning about targets that no answer can equal, as the tokenizer changes spaces or case."""
    rows = rows[:: max(1, len(rows) // LOOKED_AT)]
    targets = [text.strip() for text in texts.select(rows)["target"][:]]
    said = [text.strip() for text in decode(tokens.select(rows)["labels"][:], tokenizer)]
    pairs = [(target, text) for target, text in zip(targets, said, strict=True) if target != text]
    if not pairs:
        return []
    target, text = (shortened(repr(each), EXAMPLE) for each in pairs[0])
    return [
        f"{len(pairs):,} of {len(rows):,} targets that were looked at change when they are tokenised, such as {target} "
        f"to {text}; no answer can equal them"
    ]


def _alike(texts: Dataset, tokens: Dataset, rows: np.ndarray) -> int:
    """Return how many of these rows have the tokens of another whose source is different."""
    sources: dict[tuple[int, ...], list[str]] = {}
    for ids, source in zip(tokens.select(rows)["input_ids"][:], texts.select(rows)["source"][:], strict=True):
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
