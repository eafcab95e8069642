"""Deterministic splits in which no text, and no duplicate of it, is in two parts."""

import hashlib
import re
from collections.abc import Sequence


def normalise(text: str) -> str:
    """Return the words of `text` in lower case: texts that differ in case, spacing or punctuation become equal."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def split_by_text(texts: Sequence[str], shares: Sequence[float] = (0.7, 0.15, 0.15)) -> list[list[int]]:
    """Return the row numbers of each part, ascending; the parts hold about `shares` of the rows.

    Texts are ordered by a hash of their words and cut at the shares, never within a group of duplicates. A text's
    position does not depend on the other texts, so a text in several sets is in the same part of each (except for a
    few near a cut).
    """
    groups: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        groups.setdefault(normalise(text), []).append(row)
    ordered = sorted(groups, key=lambda words: hashlib.sha256(words.encode()).digest())
    parts: list[list[int]] = [[] for _ in shares]
    part, filled, limit = 0, 0, shares[0] * len(texts)
    for words in ordered:
        while filled >= limit and part < len(shares) - 1:
            part += 1
            limit += shares[part] * len(texts)
        parts[part].extend(groups[words])
        filled += len(groups[words])
    return [sorted(part) for part in parts]
