"""JSON files and `--key value` overrides, checked against the types of dataclass fields."""

import enum
import json
import re
import types
import typing
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.json_text import check_texts, parse_json, read_json
from common.secrets import HIDDEN, is_secret, remember_secrets


def read_file(path: str | Path, repeated: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return the object in a JSON file.

    repeated: called with each key that is set to several values, of which the last counts; None: an error.
    Raises ConfigError if the file cannot be read or is not one object.
    """
    values = read_json(path, repeated)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} contains a {type(values).__name__}; a configuration is one JSON object")
    check_texts(values, str(path))
    remember_secrets(values)
    return values


def read_overrides(arguments: list[str], known: Mapping[str, object]) -> dict[str, Any]:
    """Parse command-line overrides.

    arguments: ["--tt_rank", "4", "--name=x", "--dry_run"] gives {"tt_rank": 4, "name": "x", "dry_run": True}. A value
        is read as JSON, or else as a string.
    known: key -> type. A key that may be true needs no value.
    Raises ConfigError for anything that is not a key with a value.
    """
    values: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise ConfigError(f"unexpected argument {name!r}; overrides are written --key value")
        if not equals:
            if not rest or rest[0].startswith("--"):
                if name[2:] in known and has_type(True, known[name[2:]]):
                    values[name[2:]] = True
                    continue
                raise ConfigError(f"{name} has no value; write {name} VALUE")
            text = rest.pop(0)
        values[name[2:]] = parse_json(text, name) if _is_json(text) else text
        check_texts(values[name[2:]], name)
    remember_secrets(values)
    return values


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except json.JSONDecodeError:
        return False
    except (ValueError, RecursionError):  # a number of thousands of digits or brackets without end, which is refused
        return True
    return True


def check_keys(values: Mapping[str, Any], known: Mapping[str, object], program: str) -> None:
    """Raise ConfigError for an unknown key or a value of the wrong type.

    known: key -> type. program: the script whose --help lists the keys.
    """
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"python {program} --help lists the keys"
            raise ConfigError(f"unknown key {name}; {hint}")
        if not has_type(value, known[name]):
            shown = HIDDEN if is_secret(name) else json.dumps(value)
            raise ConfigError(f"{name} is {shown}; it must be {describe(known[name])}")


def has_type(value: Any, annotation: Any) -> bool:
    """Return True if a JSON value fits a type annotation. An int passes as a float; a bool passes as neither."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        choices = [a for a in arguments if isinstance(a, type) and issubclass(a, enum.Enum)]
        if choices and isinstance(value, str):  # `SomeEnum | str`: the string must still be a member's value
            return any(value in {member.value for member in choice} for choice in choices)
        return any(has_type(value, choice) for choice in arguments)
    if origin is typing.Literal:
        return value in arguments and type(value) in {type(a) for a in arguments}
    if origin is list:
        return isinstance(value, list) and all(has_type(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if annotation is typing.Any:
        return True
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation)


def describe(annotation: Any) -> str:
    """Describe a type in the words of someone who writes JSON."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "an object"}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        enums = [a for a in arguments if isinstance(a, type) and issubclass(a, enum.Enum)]
        shown = [a for a in arguments if not (enums and a is str)]
        return " or ".join(dict.fromkeys(describe(a) for a in shown))
    if origin is typing.Literal:
        return "one of " + ", ".join(json.dumps(a) for a in arguments)
    if origin is list:
        item = describe(arguments[0])
        plural = re.sub("(^| or )an? (list|number|object|string|whole number)", r"\1\2s", item)
        return f"a list of {plural}" if plural != item else f"a list whose items are each {item}"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in annotation)
    return words.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))
