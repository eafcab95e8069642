"""Consecutive rows of a file, as its reader yields them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow

from seq2seq.data.tables.sources import Source

ROWS = 8192  # of a batch, at most


class Broken(str):
    """What is wrong with a line that holds no row."""


@dataclass
class Batch:
    """Consecutive rows.

    first: the number of the first row, from 1; a header does not count.
    columns: name -> cells, of the columns that were asked for. Of CSV and TSV, texts; of JSON, any JSON values; of
        parquet, an array.
    raw: the rows with all columns: lists of texts, objects, or a record batch.
    problems: place in the batch -> why that is no row of this table. Such rows have empty cells.
    """

    first: int
    columns: dict[str, Sequence[Any] | pyarrow.Array]
    raw: list[list[str]] | list[dict] | pyarrow.RecordBatch
    problems: dict[int, Broken] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.raw)

    def part(self, begin: int, end: int) -> "Batch":
        """Return the rows from place `begin` to before `end`."""
        columns = {name: cells[begin:end] for name, cells in self.columns.items()}
        problems = {place - begin: problem for place, problem in self.problems.items() if begin <= place < end}
        return Batch(self.first + begin, columns, self.raw[begin:end], problems)


class TableFile(Protocol):
    """A file of rows.

    source: the file.
    columns: the names of its columns; of JSON lines, those of the first rows.
    hint: what to add to the message that a column is missing.
    """

    source: Source
    columns: list[str]
    hint: str

    def has(self, column: str) -> bool:
        """Return True if any row has a column."""

    def batches(self, columns: Sequence[str], whole: bool = False) -> Iterator[Batch]:
        """Yield the rows in order. Raises ConfigError for a damaged file.

        columns: the columns to read; one that the file does not have is missing in every row.
        whole: also read the other columns, for `raw`.
        """

    def lines_of(self, rows: Sequence[int]) -> dict[int, int]:
        """Return the line on which each of these rows, one or more, ends; {} if the file has no lines."""


def where(table: TableFile, problems: dict[int, str]) -> list[str]:
    """Say what is wrong with each of some rows: "row 2: column text is empty (line 4)", "line 5: invalid JSON"."""
    lines = table.lines_of(list(problems)) if problems else {}
    said = []
    for row, problem in problems.items():
        if row not in lines:
            said.append(f"row {row}: {problem}")
        elif isinstance(problem, Broken):
            said.append(f"line {lines[row]}: {problem}")
        else:
            said.append(f"row {row}: {problem} (line {lines[row]})")
    return said
