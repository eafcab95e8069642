"""Reads JSON that somebody else wrote: what is damaged, ambiguous or absurd is a ConfigError in one line."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.files import read_bytes

DEEPEST = 100  # objects within objects; far more than any configuration has, far less than Python can walk
LARGEST = 2**63  # of a whole number


def read_json(path: str | Path, repeated: Callable[[str], None] | None = None) -> Any:
    """Return the content of a JSON file. See `parse_json`.

    Raises ConfigError if it cannot be read, or is no JSON.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    return parse_json(text, str(path), repeated)


def object_in(path: str | Path) -> dict[str, Any] | None:
    """Return the object in a JSON file; None if there is none that can be read."""
    try:
        content = read_json(path)
    except ConfigError:
        return None
    return content if isinstance(content, dict) else None


def parse_json(text: str, place: str, repeated: Callable[[str], None] | None = None) -> Any:
    """Return the value of a JSON text.

    place: what errors name.
    repeated: called with each key that an object sets to several values, of which the last counts; None: an error.
    Raises ConfigError for what is no JSON, for a key with several values, for values nested more than DEEPEST deep, and
    for whole numbers from LARGEST.
    """

    def unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        last = dict(pairs)
        for key in dict.fromkeys(key for key, value in pairs if not _same(value, last[key])):
            if repeated is None:
                raise ConfigError(f"{place} sets {key} twice, to different values; set it once")
            repeated(key)
        return last

    try:
        value = json.loads(text, object_pairs_hook=unambiguous)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place} is not valid JSON: {error}{_hint(error)}") from None
    except RecursionError:
        raise ConfigError(f"{place} is nested more than {DEEPEST} deep") from None
    except ConfigError:
        raise
    except ValueError:  # the only other one is about a number of thousands of digits
        raise ConfigError(f"{place} has a number of thousands of digits; the largest is {LARGEST - 1}") from None
    for each, depth, key in _parts(value):
        where = f"{place}: {key}" if key else place
        if depth > DEEPEST:
            raise ConfigError(f"{where} is nested more than {DEEPEST} deep")
        if isinstance(each, int) and abs(each) >= LARGEST:
            raise ConfigError(f"{where} has a number of {len(str(abs(each)))} digits; the largest is {LARGEST - 1}")
    return value


def check_texts(value: Any, place: str) -> None:
    """Raise ConfigError for a text in a JSON value that no file name or no file can hold. See `parse_json`."""
    for each, _, key in _parts(value):
        wrong = _unstorable(each) if isinstance(each, str) else None
        if wrong is not None:
            raise ConfigError(f"{place}: {f'{key} ' if key else ''}has a text with {wrong}: {each[:40]!r}")


def _unstorable(text: str) -> str | None:
    if "\0" in text:
        return "the character NUL"
    if any("\ud800" <= c <= "\udfff" for c in text):
        return "half a surrogate pair, which is no character"
    return None


def not_finite(value: Any) -> float | None:
    """Return the first nan or infinity in a JSON value, if there is one."""
    found = (each for each, *_ in _parts(value) if isinstance(each, float) and not math.isfinite(each))
    return next(found, None)


def _parts(value: Any) -> Iterator[tuple[Any, int, str]]:
    """Yield a JSON value and all that it holds, keys included, with depth and outermost key; needs no recursion."""
    waiting: list[tuple[Any, int, str]] = [(value, 0, "")]
    while waiting:
        each, depth, outer = waiting.pop()
        yield each, depth, outer
        if depth > DEEPEST:
            continue
        if isinstance(each, dict):
            for key, part in each.items():
                waiting += [(key, depth + 1, outer), (part, depth + 1, outer or key[:40])]
        elif isinstance(each, list):
            waiting += [(part, depth + 1, outer) for part in each]


def _same(a: Any, b: Any) -> bool:
    """True for equal values of the same type: 1 and true are two values, and so are 1 and 1.0; nan equals itself."""
    return a is b or json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def _hint(error: json.JSONDecodeError) -> str:
    """What JSON does not allow at the place of the error, if it is a usual mistake; otherwise ""."""
    rest = error.doc[error.pos :].lstrip(", \t\r\n")
    if rest[:1] in ("}", "]"):
        return f"; no comma may stand before {rest[0]}"
    return "; JSON has no comments" if rest.startswith(("//", "/*", "#")) else ""
