"""Messages of other libraries in one line of ours."""

import pytest

from common.errors import ConfigError, one_line, require, type_and_line
from common.json_settings import describe


@pytest.mark.parametrize(
    ("error", "line", "with_type"),
    [
        (ValueError("first\n  second"), "first", "ValueError: first"),
        (KeyError("a"), "'a'", "KeyError: 'a'"),
        (RuntimeError("  many   spaces "), "many spaces", "RuntimeError: many spaces"),
        (ValueError(), "ValueError", "ValueError"),
    ],
)
def test_one_line(error, line, with_type):
    assert one_line(error) == line
    assert type_and_line(error) == with_type


def test_ranges():
    class Given:
        rank, dropout, seeds, scale, name = 0, 1.0, [1, -1], float("inf"), None

    require(Given, "at least 0", "rank")
    require(Given, "a non-empty name", "name")  # null is always allowed
    for allowed, key, message in (
        ("at least 1", "rank", "rank is 0; it must be at least 1"),
        ("at least 0 and below 1", "dropout", "dropout is 1.0; it must be at least 0 and below 1"),
        ("at least 0", "seeds", "seeds contains -1; each item must be at least 0"),
        ("above 0", "scale", "scale is inf; it must be above 0"),
    ):
        with pytest.raises(ConfigError) as error:
            require(Given, allowed, key)
        assert str(error.value) == message


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (list[list[int]] | None, "a list of lists of whole numbers or null"),
        (list[str], "a list of strings"),
        (list[str | dict], "a list of strings or objects"),
        (float | None, "a number or null"),
        (dict | str, "an object or a string"),
    ],
)
def test_types_in_words(annotation, words):
    assert describe(annotation) == words
