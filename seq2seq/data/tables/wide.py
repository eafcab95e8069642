"""The first cells of each row of a wide file, without making a text of every other cell."""

import csv
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

WIDE = 100  # columns from which on that is faster


class Whole(list):
    """All cells of a row that has too few or too many."""


class Wrong(list):
    """A row that could not be read. why: what is wrong with it."""

    def __init__(self, why: str):
        super().__init__()
        self.why = why


def first_cells(lines: Iterator[str], few: int, width: int, dialect: Mapping[str, Any]) -> Iterator[list[str]]:
    """Yield the first cells of each row that has the right number of them, and any other row as Whole or Wrong.

    Rows are those that a csv.reader would yield, without empty ones.

    lines: of the file, with their ends.
    few: how many cells, fewer than `width`.
    width: the number of columns.
    dialect: arguments of csv.reader.
    Raises csv.Error, without the number of the line, for a wrong quote that would take other lines along.
    """
    delimiter, quoted = dialect["delimiter"], dialect["quoting"] != csv.QUOTE_NONE
    for line in lines:
        plain = line.rstrip("\r\n")
        if not plain:
            continue
        # Cells after the last quote need no csv.reader.
        end = plain.find(delimiter, plain.rfind('"')) if quoted and '"' in plain else 0
        head = _parsed(plain[:end], dialect) if end > 0 else []
        if end < 0 or head is None:
            yield _cut(*_read(line, lines, dialect), few, width)
            continue
        rest = plain[end + 1 :] if head else plain
        if len(head) + rest.count(delimiter) + 1 == width:
            yield [*head, *rest.split(delimiter, few)][:few]
        else:
            yield Whole([*head, *rest.split(delimiter)])


def _read(line: str, lines: Iterator[str], dialect: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """Return the row that begins with a line, and what is wrong with it. Raises csv.Error if it takes other lines."""
    reader = csv.reader(chain([line], lines), **dialect)
    try:
        return next(reader), None
    except csv.Error as error:
        if reader.line_num > 1 or "end of data" in str(error):
            raise
        return [], str(error)


def _cut(row: list[str], wrong: str | None, few: int, width: int) -> list[str]:
    if wrong is not None:
        return Wrong(wrong)
    return row[:few] if len(row) == width else Whole(row)


def _parsed(text: str, dialect: Mapping[str, Any]) -> list[str] | None:
    """Return the cells of a text; null if a quote in it is not closed, or wrong."""
    try:
        return next(csv.reader([text], **dialect))
    except csv.Error:
        return None
