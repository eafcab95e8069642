"""How the keys of an experiment are declared."""

from dataclasses import MISSING, field


def key(text: str, default=MISSING):
    """A key of a configuration file: its help text and its default; without a default it must be given."""
    return field(default=default, metadata={"help": text})
