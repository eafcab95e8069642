"""JSON lines, and a JSON array of objects."""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, TextIO

from common.errors import ConfigError, one_line, shortened
from seq2seq.data.tables.batch import ROWS, Batch, Broken
from seq2seq.data.tables.sources import Source

FIRST = 100  # rows that tell the columns


class JsonFile:
    """Rows of any JSON values, an object each: one in a line, or all in an array. Empty lines do not count."""

    def __init__(self, source: Source):
        self.source, self.encoding, self.hint = source, source.encoding, ""
        with source.text(self.encoding, newline="\n") as file:
            self.is_array = file.read(1 << 16).lstrip().startswith("[")
        first = next(self._chunks(FIRST), ([], {}))[0]
        self.columns = list(dict.fromkeys(name for row in first for name in row))

    @cached_property
    def all_columns(self) -> list[str]:
        """The columns of all rows, for which the file is read."""
        names = dict.fromkeys(self.columns)
        for rows, _ in self._chunks(ROWS):
            for row in rows:
                names.update(dict.fromkeys(row))
        return list(names)

    def has(self, column: str) -> bool:
        return column in self.columns or column in self.all_columns

    def batches(self, columns: Sequence[str], whole: bool = False) -> Iterator[Batch]:
        number = 1
        for rows, problems in self._chunks(ROWS):
            yield Batch(number, {name: [row.get(name) for row in rows] for name in columns}, rows, problems)
            number += len(rows)

    def lines_of(self, rows: Sequence[int]) -> dict[int, int]:
        if self.is_array:
            return {}
        with self.source.text(self.encoding, newline="\n") as file:
            filled = (number for number, line in enumerate(file, 1) if line.strip())
            return {row: line for row, line in enumerate(islice(filled, max(rows)), 1) if row in rows}

    def _chunks(self, size: int) -> Iterator[tuple[list[dict], dict[int, Broken]]]:
        """Yield rows, and what is wrong with some of them; an array is read as a whole, and is invalid as a whole."""
        with self.source.text(self.encoding, newline="\n") as file:
            values = iter(self._array(file)) if self.is_array else filter(str.strip, file)
            while chunk := list(islice(values, size)):
                yield checked(chunk) if self.is_array else parsed(chunk)

    def _array(self, file: TextIO) -> list:
        try:
            return json.load(file)
        except json.JSONDecodeError as error:
            where = f"{error.msg} at character {error.colno}" + (f" (line {error.lineno})" if error.lineno > 1 else "")
            raise ConfigError(f"{self.source.place}: invalid JSON: {where}") from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.source.place}: invalid JSON: {one_line(error)}") from None


def parsed(lines: list[str]) -> tuple[list[dict], dict[int, Broken]]:
    """Return the row in each line, {} for a line without one, and what is wrong with such lines, by place."""
    try:
        return checked(list(map(json.loads, lines)))
    except (ValueError, RecursionError):
        pairs = [_parsed(line.rstrip()) for line in lines]
    rows, problems = checked([row for row, _ in pairs])
    problems |= {place: problem for place, (_, problem) in enumerate(pairs) if problem}
    return rows, dict(sorted(problems.items()))


def _parsed(line: str) -> tuple[Any, Broken | None]:
    try:
        return json.loads(line), None
    except json.JSONDecodeError as error:
        return {}, Broken(f"invalid JSON: {error.msg} at character {error.colno}")
    except (ValueError, RecursionError) as error:
        return {}, Broken(f"invalid JSON: {one_line(error)}")


def checked(values: list) -> tuple[list[dict], dict[int, Broken]]:
    """Return the values with {} for what is no object, and a remark on each such value."""
    problems = {}
    if set(map(type, values)) != {dict}:
        for place, value in enumerate(values):
            if not isinstance(value, dict):
                what = f"{shortened(json.dumps(value), 40)} is not an object with a value for each column"
                problems[place] = Broken(what)
                values[place] = {}
    return values, problems
