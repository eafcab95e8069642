"""What a user is told when a setting cannot work."""

import math
import sys
from functools import cache

RANGES = {
    "at least 1": lambda value: value >= 1,
    "at most 20": lambda value: value <= 20,
    "at least 2": lambda value: value >= 2,
    "at least 0": lambda value: value >= 0,
    "a finite number": lambda value: True,
    "above 0": lambda value: value > 0,
    "at least 0 and below 1": lambda value: 0 <= value < 1,
    "at least 0 and below 2**32": lambda value: 0 <= value < 2**32,
    "a name, not empty": bool,
}


class ConfigError(ValueError):
    """A setting that cannot work: one line naming the key, what was given and what is allowed."""


def one_line(error: Exception) -> str:
    """The first line of another library's message, for use inside a ConfigError."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[0].split()) if lines else type(error).__name__


def require(arguments, allowed: str, *names: str) -> None:
    """Raise ConfigError for the first of these keys whose value is not `allowed`, one of RANGES; null always is.

    Of a list each item must be allowed.
    """
    for name in names:
        value = getattr(arguments, name)
        if isinstance(value, list):
            for item in value:
                if not RANGES[allowed](item):
                    raise ConfigError(f"{name} holds {item!r}; each must be {allowed}")
            continue
        infinite = isinstance(value, float) and not math.isfinite(value)
        if value is not None and (infinite or not RANGES[allowed](value)):
            raise ConfigError(f"{name} is {value!r}; it must be {allowed}")


@cache
def warn_once(text: str) -> None:
    """One line on standard error, once in a process."""
    print(f"warning: {text}", file=sys.stderr)
