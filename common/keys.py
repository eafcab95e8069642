"""Declares the keys of a configuration file as fields of dataclasses."""

import typing
from dataclasses import MISSING, Field, field, fields
from typing import Any

REQUIRED = MISSING  # the default of a key that a file must set


def key(default: Any, text: str, **metadata: object) -> Any:
    """Declare a configuration key, as the value of a dataclass field.

    default: its default, or REQUIRED.
    text: its help text.
    metadata: kept in the field's metadata, beside `help`.
    """
    return field(default=default, metadata={"help": text, **metadata})


def key_fields(cls: type) -> list[Field]:
    """Return the fields of a dataclass that are keys; others are set by the program, not by a file."""
    return [f for f in fields(cls) if "help" in f.metadata]


def key_types(cls: type) -> dict[str, Any]:
    """Return the keys of a dataclass with their types."""
    types = typing.get_type_hints(cls)
    return {f.name: types[f.name] for f in key_fields(cls)}
