"""CSV and TSV."""

import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter
from typing import Any

from common.errors import ConfigError, shortened
from seq2seq.data.tables.batch import ROWS, Batch, Broken
from seq2seq.data.tables.sources import Source
from seq2seq.data.tables.wide import WIDE, Wrong, first_cells

csv.field_size_limit(2**31 - 1)  # some passages exceed the default of 128 KiB
CELLS = 1 << 18  # of a batch, at most, as every cell is an object for a moment
LONGEST_NAME = 60  # of a column, in characters; what is longer is data


class SeparatedFile:
    """Rows of texts, "" where a cell is empty.

    Quotes enclose cells with delimiters, quotes or line breaks. In TSV they do so only if the whole file can be read
    that way; otherwise they are text. Columns without a name cannot be chosen.
    """

    def __init__(self, source: Source):
        self.source, self.delimiter, self.encoding = source, source.delimiter(), source.encoding
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise ConfigError(f"delimiter is {self.delimiter!r}; it must be one character, such as ';' or a tab")
        self.quoted = True
        self.quoted = self._reads_as_quoted() if source.form.quoted is None else source.form.quoted
        with self._reading() as reader:
            first = [name.strip() for name in next(filter(None, reader), [])]
        given = source.form.columns
        self.headless = given is not None and list(given) != first
        self.columns, self.hint = list(given or first), ""
        if given is None and any(map(_is_data, first)):
            self.hint = "; its first row looks like data: if it has no header, set columns to the names of its columns"
        if given is not None and first and len(given) != len(first):
            raise ConfigError(f"columns names {len(given)} columns, but {source.place} begins with {len(first)} cells")
        headed = {name.casefold() for name in first} & {name.casefold() for name in self.columns if name}
        if self.headless and headed:
            source.notes.append(
                f"{source.place} begins with a row that looks like a header ({shortened(', '.join(first), 100)}); as "
                "columns says that there is none, it is read as data"
            )

    def has(self, column: str) -> bool:
        return column in self.columns

    def batches(self, columns: Sequence[str], whole: bool = False) -> Iterator[Batch]:
        twice = [name for name in columns if self.columns.count(name) > 1]
        if twice:
            names = shortened(", ".join(self.columns), 200)
            raise ConfigError(f"{self.source.place}, line 1: two columns have the same name: {names}{self.hint}")
        width, number = len(self.columns), 1
        places = {name: self.columns.index(name) for name in columns if name in self.columns}
        kept = max(places.values(), default=0) + 1
        few = kept if width >= WIDE and not whole and kept < width else None
        with self._rows(few) as rows:
            if not self.headless:
                next(rows, None)
            for chunk in chunks(rows, max(1, min(ROWS, CELLS // max(few or width, 1)))):
                odd = set(map(type, chunk)) != {list} if few else set(map(len, chunk)) != {width}
                problems = mend(chunk, self.columns, few) if odd else {}
                cells = {name: list(map(itemgetter(place), chunk)) for name, place in places.items()}
                cells |= {name: [""] * len(chunk) for name in columns if name not in places}
                yield Batch(number, cells, chunk, problems)
                number += len(chunk)

    def lines_of(self, rows: Sequence[int]) -> dict[int, int]:
        lines, first = {}, 1 if self.headless else 0
        with self._reading() as reader:
            for number, _ in enumerate(self._filled(reader), first):
                if number in rows:
                    lines[number] = reader.line_num
                if number >= max(rows):
                    return lines
        return lines

    @property
    def dialect(self) -> dict[str, Any]:
        """Arguments of csv.reader."""
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        return {"delimiter": self.delimiter, "strict": True, "quoting": quoting}

    @contextmanager
    def _reading(self) -> Iterator:
        """Open the file for a csv.reader, whose errors become ConfigErrors with their line."""
        with self.source.text(self.encoding, newline="") as file:
            reader = csv.reader(file, **self.dialect)
            try:
                yield reader
            except csv.Error as error:
                raise ConfigError(f"{self.source.place}, line {reader.line_num}: {error}") from None

    @contextmanager
    def _rows(self, few: int | None) -> Iterator[Iterator[list[str]]]:
        """Yield the rows, with the header, without empty ones; with `few` only their first cells."""
        if few is None:
            with self._reading() as reader:
                yield self._filled(reader)
            return
        with self.source.text(self.encoding, newline="") as file:
            try:
                yield first_cells(file, few, len(self.columns), self.dialect)
            except csv.Error:
                self.lines_of([sys.maxsize])  # which fails at the same row, and says on which line
                raise

    def _filled(self, reader) -> Iterator[list[str]]:
        """Yield the rows that are not empty; for a line with a wrong quote, a row that says so.

        Raises ConfigError for a wrong quote that would take other lines along.
        """
        while True:
            before = reader.line_num
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if reader.line_num > before + 1 or "end of data" in str(error):
                    raise ConfigError(
                        f"{self.source.place}, line {reader.line_num}: {error}, in a row that begins on line "
                        f"{before + 1}; is a quote there not closed?"
                    ) from None
                row = Wrong(str(error))
            if row or isinstance(row, Wrong):
                yield row

    def _reads_as_quoted(self) -> bool:
        """True for CSV, and for TSV in which every cell that begins with a quote is well quoted.

        And that has no more rows of another width than without quotes: those in two rows may fit by chance.
        """
        if self.delimiter != "\t":
            return True
        odd = []
        for quoted in (True, False):
            self.quoted = quoted
            try:
                with self._reading() as reader:
                    width = len(next(filter(None, reader), []))
                    odd.append(sum(len(row) < width or any(row[width:]) for row in reader if row))
            except ConfigError:
                return False
        return odd[0] <= odd[1]


def chunks(rows: Iterator[list[str]], size: int) -> Iterator[list[list[str]]]:
    """Yield the rows in lists; those before an error come first."""
    while True:
        chunk: list[list[str]] = []
        try:
            chunk.extend(islice(rows, size))
        except ConfigError:
            if chunk:
                yield chunk
            raise
        if not chunk:
            return
        yield chunk


def mend(chunk: list[list[str]], columns: Sequence[str], few: int | None) -> dict[int, Broken]:
    """Make all rows of a chunk equally wide; return what is wrong with those that have too few or too many cells.

    Columns without a name may be missing at the end of a row.

    few: how many cells are kept of rows that were read in part; null: all were read.
    """
    problems, width = {}, len(columns)
    needed = max((place for place, name in enumerate(columns, 1) if name), default=width)
    for place, row in enumerate(chunk):
        if few and type(row) is list:
            continue
        if isinstance(row, Wrong):
            problems[place] = Broken(row.why)
        elif len(row) < needed or any(row[width:]):
            problems[place] = Broken(f"{len(row)} cells; the header has {width}")
        chunk[place] = [""] * (few or width) if place in problems else [*row, *[""] * width][: few or width]
    return problems


def _is_data(name: str) -> bool:
    """True if a cell of the first row is unlikely to be the name of a column."""
    try:
        return len(name) > LONGEST_NAME or bool(float(name) or True)
    except ValueError:
        return False
