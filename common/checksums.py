"""Checksums of a group of files, kept in one of them, a JSON file that also has a checksum of its own content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from common.files import without_infinities

KEY = "sha256"
ITSELF = "this file"


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's content, as hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: Mapping[str, object], files: Mapping[str, str]) -> dict[str, object]:
    """Return `content`, which JSON must be able to hold, with checksums under the key "sha256".

    files: file name -> SHA-256 of each other file of the group.
    """
    plain = {name: value for name, value in content.items() if name != KEY}
    return {**plain, KEY: {**files, ITSELF: _own(plain)}}


def is_sealed(content: Mapping[str, object]) -> bool:
    """Return True if `content` has checksums."""
    return KEY in content


def damage(content: Mapping[str, object], directory: Path, name: str) -> str | None:
    """Return which file of a group is missing or was changed after it was written, or None.

    content: the JSON content of the file `name` in `directory`, as `sealed` made it. Spaces and order do not count.
    """
    sums = content[KEY]
    if not isinstance(sums, dict) or sums.get(ITSELF) != _own({k: v for k, v in content.items() if k != KEY}):
        return f"{name} was changed after it was written"
    for other, expected in sums.items():
        if other == ITSELF:
            continue
        if Path(other).name != other or not (directory / other).is_file():
            return f"{other}, which {name} lists, is missing"
        if sha256_of(directory / other) != expected:
            return f"{other} was changed after it was written"
    return None


def _own(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(without_infinities(content), sort_keys=True).encode()).hexdigest()
