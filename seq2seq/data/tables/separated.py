"""CSV and TSV."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import itemgetter

from common.errors import ConfigError, shortened
from seq2seq.data.tables.batch import ROWS, Batch, Broken
from seq2seq.data.tables.sources import Source

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
        twice = [name for name in self.columns if name and self.columns.count(name) > 1]
        if twice:
            names = shortened(", ".join(self.columns), 200)
            raise ConfigError(f"{source.place}, line 1: two columns have the same name: {names}{self.hint}")

    def batches(self, columns: Sequence[str], whole: bool = False) -> Iterator[Batch]:
        width, number = len(self.columns), 1
        places = [self.columns.index(name) for name in columns if name in self.columns]
        empty = {name: ("",) for name in columns if name not in self.columns}
        with self._reading() as reader:
            rows = filter(None, reader)
            if not self.headless:
                next(rows, None)
            while chunk := list(islice(rows, max(1, min(ROWS, CELLS // max(width, 1))))):
                problems = mend(chunk, width) if set(map(len, chunk)) != {width} else {}
                cells = {self.columns[place]: list(map(itemgetter(place), chunk)) for place in places}
                cells |= {name: blank * len(chunk) for name, blank in empty.items()}
                yield Batch(number, cells, chunk, problems)
                number += len(chunk)

    def lines_of(self, rows: Sequence[int]) -> dict[int, int]:
        lines, first = {}, 1 if self.headless else 0
        with self._reading() as reader:
            for number, _ in enumerate(filter(None, reader), first):
                if number in rows:
                    lines[number] = reader.line_num
                if number >= max(rows):
                    return lines
        return lines

    @contextmanager
    def _reading(self) -> Iterator:
        """Open the file for a csv.reader, whose errors become ConfigErrors with their line."""
        quoting = csv.QUOTE_MINIMAL if self.quoted else csv.QUOTE_NONE
        with self.source.text(self.encoding, newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter, strict=True, quoting=quoting)
            try:
                yield reader
            except csv.Error as error:
                raise ConfigError(f"{self.source.place}, line {reader.line_num}: {error}") from None

    def _reads_as_quoted(self) -> bool:
        """True for CSV, and for TSV in which every cell that begins with a quote is well quoted."""
        if self.delimiter != "\t":
            return True
        try:
            with self._reading() as reader:
                width = len(next(filter(None, reader), []))
                return all(len(row) == width for row in reader if row)
        except ConfigError:
            return False


def mend(chunk: list[list[str]], width: int) -> dict[int, Broken]:
    """Make all rows of a chunk equally wide; return what is wrong with those that have too few or too many cells."""
    problems = {}
    for place, row in enumerate(chunk):
        if len(row) < width or any(row[width:]):
            problems[place] = Broken(f"{len(row)} cells; the header has {width}")
            chunk[place] = [""] * width
        else:
            del row[width:]  # delimiters at the end of a line
    return problems


def _is_data(name: str) -> bool:
    """True if a cell of the first row is unlikely to be the name of a column."""
    try:
        return len(name) > LONGEST_NAME or bool(float(name) or True)
    except ValueError:
        return False
