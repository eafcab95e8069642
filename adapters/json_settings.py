"""Dataclasses as JSON: files, `--key value` overrides, and types that are checked and put into words."""

import enum
import json
import types
import typing
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from adapters.errors import ConfigError


def read_file(path: str) -> dict:
    """The object in a JSON file. Raises ConfigError."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}; a configuration is one JSON object")
    return values


def read_overrides(arguments: list[str], known: Mapping[str, object]) -> dict:
    """`["--tt_rank", "4", "--name=x"]` to {"tt_rank": 4, "name": "x"}; `known`: the keys and their types."""
    values, rest = {}, list(arguments)
    while rest:
        name, equals, text = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise ConfigError(f"{name!r} is neither --key nor the value of one; overrides are written --key value")
        if not equals:
            if not rest or rest[0].startswith("--"):
                if name[2:] in known and has_type(True, known[name[2:]]):  # --dry_run
                    values[name[2:]] = True
                    continue
                raise ConfigError(f"{name} has no value; write {name} VALUE")
            text = rest.pop(0)
        try:
            values[name[2:]] = json.loads(text)
        except ValueError:  # no JSON, or a number of thousands of digits
            values[name[2:]] = text
    return values


def check_keys(values: dict, known: Mapping[str, object], program: str) -> None:
    """Raise ConfigError for a key that does not exist or a value of the wrong type; `program` --help lists the keys."""
    for name, value in values.items():
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; python {program} --help lists the keys"
            raise ConfigError(f"{name} is no key of a configuration{hint}")
        if not has_type(value, known[name]):
            raise ConfigError(f"{name} is {json.dumps(value)}; it must be {describe(known[name])}")


def has_type(value, annotation) -> bool:
    """Whether a JSON value is of a type as dataclasses annotate it; a whole number passes as a float, a bool never."""
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


def describe(annotation) -> str:
    """A type in the words of someone who writes JSON."""
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", dict: "an object"}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        enums = [a for a in arguments if isinstance(a, type) and issubclass(a, enum.Enum)]
        shown = [a for a in arguments if not (enums and a is str)]
        return " or ".join(dict.fromkeys(describe(a) for a in shown))
    if origin is typing.Literal:
        return "one of " + ", ".join(json.dumps(a) for a in arguments)
    if origin is list:
        return f"a list of which each item is {describe(arguments[0])}"
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in annotation)
    return words.get(origin or annotation, getattr(annotation, "__name__", str(annotation)))
