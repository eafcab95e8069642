"""Deterministic splits in which no text, and no duplicate of it, is in two parts."""

import hashlib
import re
from collections.abc import Iterator, Sequence

import numpy as np

ROWS = 10_000  # whose texts are normalised at once
BETWEEN_WORDS = re.compile(r"[^\w\n]+")
# The same for ASCII, several times as fast.
BETWEEN_ASCII_WORDS = {code: " " for code in range(128) if not (chr(code).isalnum() or chr(code) in "_\n")}


def normalise(text: str) -> str:
    """Return the words of `text` in lower case: texts that differ in case, spacing or punctuation become equal."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def normalise_all(texts: Sequence[str]) -> Iterator[str]:
    """Yield what `normalise` makes of each text; many are treated at once, which is several times as fast."""
    for start in range(0, len(texts), ROWS):
        part = texts[start : start + ROWS]
        lines = "\n".join([text.replace("\n", " ") for text in part]).casefold()
        apart = lines.translate(BETWEEN_ASCII_WORDS) if lines.isascii() else BETWEEN_WORDS.sub(" ", lines)
        for text, words in zip(part, apart.split("\n"), strict=True):
            yield " ".join(words.split()) or text.strip()


def split_by_text(texts: Sequence[str], shares: Sequence[float] = (0.7, 0.15, 0.15)) -> list[list[int]]:
    """Return the row numbers of each part, ascending; see `part_of_each`."""
    parts = part_of_each(texts, shares)
    return [np.flatnonzero(parts == part).tolist() for part in range(len(shares))]


def part_of_each(texts: Sequence[str], shares: Sequence[float]) -> np.ndarray:
    """Return the part that each row is in, an array of int8; the parts hold about `shares` of the rows.

    Texts are ordered by a hash of their words and cut at the shares, never within a group of duplicates. A text's
    position does not depend on the other texts, so a text in several sets is in the same part of each (except for a
    few near a cut). With at least as many different texts as parts, no part is empty.
    """
    digests = b"".join([hashlib.sha256(words.encode()).digest()[:16] for words in normalise_all(texts)])
    keys = np.frombuffer(digests, dtype=">u8").reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)][: len(texts)])
    # A group is in the first part whose cut, the sum of the shares so far, lies beyond the rows before the group.
    cuts = np.cumsum(np.array(shares) * len(texts))[:-1]
    parts = np.searchsorted(cuts, starts, side="right").astype(np.int8)
    for part in range(1, len(shares)):  # with few groups, the last ones are spread over the parts that lack one
        last = len(parts) - len(shares) + part
        if last >= 1:
            parts[last:] = np.maximum(parts[last:], part)
    result = np.empty(len(texts), dtype=np.int8)
    result[order] = np.repeat(parts, np.diff(np.r_[starts, len(texts)]))
    return result
