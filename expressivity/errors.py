"""The error of this package, and the ranges of its numbers."""

from common.errors import ConfigError


class ExpressivityError(ConfigError):
    """An experiment that cannot work. The message is one line: the space, the size and what is allowed."""


def each_is(values: list, allowed, what: str) -> None:
    """Raise ExpressivityError, beginning with `what`, unless all `values` are finite numbers that are `allowed`."""
    rule, holds = allowed
    for value in values:
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")
        if not number or not holds(value):
            raise ExpressivityError(f"{what} is {value!r}; it must be {rule}")


POSITIVE = "a number above 0", lambda value: value > 0
COUNT = "a whole number, at least 1", lambda value: isinstance(value, int) and value >= 1
SEVERAL = "a whole number, at least 2", lambda value: isinstance(value, int) and value >= 2
SEED = "a whole number, at least 0", lambda value: isinstance(value, int) and value >= 0
NOT_NEGATIVE = "a number, at least 0", lambda value: value >= 0
SHARE = "a number between 0 and 1", lambda value: 0 < value < 1
