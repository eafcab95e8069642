"""Write rows as they were read, with more columns, batch by batch."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import pyarrow
from pyarrow import parquet

from common.errors import ConfigError, one_line
from seq2seq.data.tables.batch import Batch, TableFile

Columns = Mapping[str, Sequence[Any]]


class Writer(Protocol):
    """Writes the rows of a table to a file."""

    def write(self, batch: Batch, more: Columns) -> None:
        """Write consecutive rows. more: further columns, name -> cells: texts, numbers or null."""

    def close(self) -> None:
        """Write what is left; the file stays open."""


class SeparatedWriter:
    """CSV, or TSV in which quotes are text if they were text in the file that was read."""

    def __init__(self, file: BinaryIO, table: TableFile, kind: str, more: Sequence[str]):
        source = table.source
        given = getattr(table, "delimiter", None)
        delimiter = given if given and source.kind == kind else "\t" if kind == "tsv" else ","
        raw = source.kind == kind and not getattr(table, "quoted", True)
        quoting = {"quoting": csv.QUOTE_NONE, "quotechar": None} if raw else {}
        self.text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        self.writer = csv.writer(_Lines(self.text), delimiter=delimiter, lineterminator="\r\n", **quoting)
        self.columns = table.columns
        self.writer.writerow([*table.columns, *more])

    def write(self, batch: Batch, more: Columns) -> None:
        rows = zip(lists(batch, self.columns), *more.values(), strict=True)
        try:
            self.writer.writerows([*map(cell_text, row), *map(cell_text, cells)] for row, *cells in rows)
        except csv.Error as error:
            raise ConfigError(
                f"a cell cannot be written as TSV without quotes ({error}); choose another format"
            ) from None

    def close(self) -> None:
        self.text.flush()
        self.text.detach()


class _Lines:
    """A file for a csv.writer: with "\\r\\n" as its line end it quotes both, and with this the lines end with "\\n"."""

    def __init__(self, text: io.TextIOWrapper):
        self.text = text

    def write(self, line: str) -> None:
        self.text.write(line.removesuffix("\r\n") + "\n")


class JsonLinesWriter:
    """JSON lines, or a JSON array."""

    def __init__(self, file: BinaryIO, table: TableFile, kind: str, more: Sequence[str]):
        self.file, self.columns, self.array, self.rows = file, table.columns, kind == "json", 0
        if self.array:
            file.write(b"[")

    def write(self, batch: Batch, more: Columns) -> None:
        for row, *cells in zip(objects(batch, self.columns), *more.values(), strict=True):
            line = json.dumps({**row, **dict(zip(more, cells, strict=True))}, ensure_ascii=False, default=str)
            before = (",\n" if self.rows else "\n") if self.array else ""
            self.file.write((before + line + ("" if self.array else "\n")).encode(errors="surrogatepass"))
            self.rows += 1

    def close(self) -> None:
        if self.array:
            self.file.write(b"\n]\n")


class ParquetWriter:
    """Parquet, with the types of the first batch."""

    def __init__(self, file: BinaryIO, table: TableFile, kind: str, more: Sequence[str]):
        self.file, self.columns, self.writer = file, table.columns, None

    def write(self, batch: Batch, more: Columns) -> None:
        try:
            if isinstance(batch.raw, pyarrow.RecordBatch):
                rows = pyarrow.Table.from_batches([batch.raw])
            else:
                rows = pyarrow.Table.from_pylist(objects(batch, self.columns))
            for name, cells in more.items():
                kind = pyarrow.float64() if all(isinstance(cell, float | None) for cell in cells) else pyarrow.string()
                rows = rows.append_column(name, pyarrow.array(cells, kind))
            self.writer = self.writer or parquet.ParquetWriter(self.file, rows.schema)
            self.writer.write_table(rows.cast(self.writer.schema) if rows.schema != self.writer.schema else rows)
        except (ValueError, TypeError, pyarrow.ArrowException) as error:
            raise ConfigError(f"rows cannot be written as parquet: {one_line(error)}; choose another format") from None

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


WRITERS = {
    "csv": SeparatedWriter,
    "tsv": SeparatedWriter,
    "jsonl": JsonLinesWriter,
    "json": JsonLinesWriter,
    "parquet": ParquetWriter,
}


def lists(batch: Batch, columns: Sequence[str]) -> list[list[Any]]:
    """Return the rows of a batch as lists, in the order of the columns."""
    if isinstance(batch.raw, pyarrow.RecordBatch):
        return [list(row.values()) for row in batch.raw.to_pylist()]
    return [row if isinstance(row, list) else [row.get(name) for name in columns] for row in batch.raw]


def objects(batch: Batch, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a batch as objects; columns without a name are called column 3 and so on."""
    if isinstance(batch.raw, pyarrow.RecordBatch):
        return batch.raw.to_pylist()
    names = [name or f"column {number}" for number, name in enumerate(columns, 1)]
    return [row if isinstance(row, dict) else dict(zip(names, row, strict=True)) for row in batch.raw]


def cell_text(cell: Any) -> str:
    """Return a cell as CSV has it."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    return json.dumps(cell, ensure_ascii=False, default=str) if isinstance(cell, bool | list | dict) else str(cell)
