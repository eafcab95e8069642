"""Cells of any type as texts. A missing value is null, never the text "nan"."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow
import pyarrow.compute as pc

MISSING = ("nan", "NaN", "NA", "N/A", "#N/A", "NaT", "null", "NULL", "None", "<NA>")
SEPARATOR = " "  # between the items of a list that are joined


@dataclass
class Texts:
    """The cells of a column in consecutive rows.

    values: the text of each; null: missing, or a problem.
    problems: place -> what is wrong with a cell that is no text.
    lists: place -> the texts of a cell that holds a list of two or more.
    words: place -> the text of a cell that stands for a missing value.
    """

    values: pyarrow.Array
    problems: dict[int, str] = field(default_factory=dict)
    lists: dict[int, list[str]] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)


class Reading:
    """How cells become texts.

    missing: texts that stand for a missing value; so do empty texts and spaces.
    multiple: what becomes of a list: "join" or "first"; null: it is a problem.
    """

    def __init__(self, missing: Sequence[str] = MISSING, multiple: str | None = None):
        self.missing, self.multiple = pyarrow.array(list(missing), pyarrow.string()), multiple

    def texts(self, cells: Sequence[Any] | pyarrow.Array) -> Texts:
        """Return the cells of a column as texts."""
        found = self._of_array(cells) if isinstance(cells, pyarrow.Array) else self._of_values(cells)
        trimmed = pc.utf8_trim_whitespace(found.values)
        empty, stands = pc.equal(pc.utf8_length(trimmed), 0), pc.is_in(trimmed, self.missing)
        found.words = {place: found.values[place].as_py() for place in pc.indices_nonzero(stands).to_pylist()}
        gone = pc.or_(empty, stands)
        found.values = pc.if_else(gone, pyarrow.scalar(None, pyarrow.string()), found.values)
        return found

    def _of_values(self, cells: Sequence[Any]) -> Texts:
        kinds = set(map(type, cells))
        if kinds <= {str, type(None)}:
            try:
                return Texts(pyarrow.array(cells, pyarrow.string()))
            except UnicodeEncodeError:
                pass  # half a character; found below
        found = Texts(pyarrow.nulls(0))
        texts = [self._text(cell, place, found) for place, cell in enumerate(cells)]
        found.values = pyarrow.array(texts, pyarrow.string())
        return found

    def _text(self, cell: Any, place: int, found: Texts) -> str | None:
        """Return the text of a cell; null, with a remark in `found`, for what is none."""
        if cell is None or isinstance(cell, float) and math.isnan(cell):
            return None
        if isinstance(cell, bool):
            return json.dumps(cell)
        if isinstance(cell, bytes):
            try:
                return cell.decode()
            except UnicodeDecodeError as error:
                found.problems[place] = f"is binary, and not UTF-8 (byte {error.start})"
                return None
        if isinstance(cell, list | tuple):
            return self._text_of_list(cell, place, found)
        if isinstance(cell, dict):
            found.problems[place] = "is an object; make its values columns of their own"
            return None
        text = str(cell)
        if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            found.problems[place] = "holds half a character (an unpaired surrogate)"
            return None
        return text

    def _text_of_list(self, cell: Sequence[Any], place: int, found: Texts) -> str | None:
        if self.multiple is None:
            found.problems[place] = 'is a list; set multiple to "join" or "first"'
            return None
        try:
            items = self._of_values(list(cell))
        except RecursionError:
            found.problems[place] = "is nested too deeply"
            return None
        if items.problems or items.lists:
            found.problems[place] = "is a list of lists or objects"
            return None
        texts = [text for text in items.values.to_pylist() if text is not None and text.strip()]
        if len(texts) > 1:
            found.lists[place] = texts
        return SEPARATOR.join(texts if self.multiple == "join" else texts[:1])

    def _of_array(self, cells: pyarrow.Array) -> Texts:
        kind = cells.type
        if pyarrow.types.is_dictionary(kind):
            return self._of_array(cells.dictionary_decode())
        if pyarrow.types.is_null(kind) or pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
            return Texts(cells.cast(pyarrow.string()))
        if pyarrow.types.is_integer(kind) or pyarrow.types.is_decimal(kind) or pyarrow.types.is_boolean(kind):
            return Texts(cells.cast(pyarrow.string()))
        if pyarrow.types.is_temporal(kind):
            return Texts(_of_times(cells))
        if pyarrow.types.is_floating(kind):
            numbers = cells.to_numpy(zero_copy_only=False)  # whose str() is the shortest text of that precision
            valid = cells.is_valid().to_pylist()
            texts = [str(n) if is_valid and n == n else None for n, is_valid in zip(numbers, valid, strict=True)]
            return Texts(pyarrow.array(texts, pyarrow.string()))
        return self._of_values(cells.to_pylist())


def _of_times(cells: pyarrow.Array) -> pyarrow.Array:
    try:
        return pc.replace_substring_regex(cells.cast(pyarrow.string()), r"\.0+$", "")
    except (pyarrow.ArrowException, ValueError):  # durations; time zones that this system does not know
        return pyarrow.array([None if cell is None else str(cell) for cell in cells.to_pylist()], pyarrow.string())
