"""Errors and warnings that a user reads: one line each, with what was given, what is allowed and the key to change."""

import math
import operator
import sys
from collections.abc import Callable
from functools import cache, partial
from typing import Any

# What `require` allows, in the words of the error message.
RANGES: dict[str, Callable[[Any], bool]] = {
    "at least 0": lambda value: value >= 0,
    "at least 1": lambda value: value >= 1,
    "at least 2": lambda value: value >= 2,
    **{f"at most {n:,}": partial(operator.ge, n) for n in (20, 1000, 10_000, 1_000_000, 10_000_000)},
    "above 0": lambda value: value > 0,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "at least 0 and below 2**32": lambda value: 0 <= value < 2**32,
    "a finite number": lambda value: True,
    "a non-empty name": bool,
}


LONGEST = 2000  # characters of a message


class ConfigError(ValueError):
    """A setting that cannot work. The message is one line: the key, the given value and the allowed ones."""


class RunFailed(Exception):
    """A run that ends by itself without a result, with status 1. The message is one line: what happened, what to do."""


class Terminated(BaseException):
    """The end of the program on SIGTERM, with status 143. The message is the line to print."""


def one_line(error: BaseException) -> str:
    """Return the first line of another library's error message, for use inside a message of ours."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split()) if lines else type(error).__name__


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return a text as one line, without its middle if it is long."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    if len(line) <= longest:
        return line
    return f"{line[: longest * 2 // 3]} .. {line[-(longest // 3) :]}"


def type_and_line(error: BaseException) -> str:
    """Return the exception's type and the first line of its message."""
    name, line = type(error).__name__, one_line(error)
    return name if line == name else f"{name}: {line}"


def require(arguments: object, allowed: str, *names: str) -> None:
    """Raise ConfigError unless the values of these keys are in range.

    arguments: the dataclass that holds the keys.
    allowed: one of RANGES. null is always allowed; of a list, every item must be.
    """
    for name in names:
        value = getattr(arguments, name)
        if isinstance(value, list):
            for item in value:
                if not RANGES[allowed](item):
                    raise ConfigError(f"{name} contains {item!r}; each item must be {allowed}")
            continue
        infinite = isinstance(value, float) and not math.isfinite(value)
        if value is not None and (infinite or not RANGES[allowed](value)):
            raise ConfigError(f"{name} is {value!r}; it must be {allowed}")


@cache
def warn_once(text: str) -> None:
    """Print a warning to standard error, once per process."""
    print(f"warning: {text}", file=sys.stderr)
