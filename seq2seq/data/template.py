"""The template of a source: text with the names of columns in braces."""

import re
from collections.abc import Collection, Mapping, Sequence
from string import Formatter

import pyarrow
import pyarrow.compute as pc

from common.errors import ConfigError, shortened
from seq2seq.data.tables import TableFile

SHOWN = 300  # characters of a list of columns in a message


class Template:
    """A template such as "question: {question} context: {context}"; "{{" stands for a brace.

    fields: the columns in it, in order, each once.
    """

    def __init__(self, text: str | None, table: TableFile, optional: Collection[str] = ()):
        """Parse a template. Raises ConfigError unless it names columns of the table, and nothing else.

        optional: columns that may be empty.
        """
        self.text, self.optional = text, set(optional)
        columns = [name for name in table.columns if name]
        known = f"{table.source.place} has the columns {names_of(columns)}{table.hint}"
        if text is None:
            raise ConfigError(
                f'source_template is null; set it to the text of a source, such as "text: {{text}}"; {known}'
            )
        if not columns:
            raise ConfigError(f"{table.source.place} holds no rows")
        try:
            self.parts = [(literal, _name(*field)) for literal, *field in Formatter().parse(text)]
        except ValueError as error:
            raise ConfigError(f"source_template is {text!r}: {error}; {known}") from None
        named = [name for _, name in self.parts if name is not None]
        wrong = [name for name in named if not (name in self.optional or name and table.has(name))]
        if wrong or not named:
            plain = re.split("[!:]", wrong[0])[0] if wrong else ""
            what = f"but {{{plain}}} is not the name of a column" if wrong else "with no column in braces"
            raise ConfigError(f"source_template is {text!r}, {what}; {known}")
        self.fields = list(dict.fromkeys(named))
        unused = self.optional.difference(self.fields)
        if unused:
            raise ConfigError(f"optional_columns has {sorted(unused)[0]!r}, which is not in source_template: {text!r}")

    def fill(self, columns: Mapping[str, pyarrow.Array]) -> pyarrow.Array:
        """Return the sources of rows; null where a column that is not optional is missing.

        columns: name -> texts of the rows, null where they are missing.
        """
        pieces: list[pyarrow.Array | str] = []
        for literal, name in self.parts:
            pieces.append(literal)
            if name is not None:
                pieces.append(pc.fill_null(columns[name], "") if name in self.optional else columns[name])
        return pc.binary_join_element_wise(*pieces, "")


def _name(name: str | None, form: str | None, conversion: str | None) -> str | None:
    """Return the text between two braces: a name may hold the signs that separate a format."""
    if name is None:
        return None
    return name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")


def names_of(columns: Sequence[str]) -> str:
    """Return the names of columns for a message."""
    return shortened(", ".join(columns), SHOWN)
