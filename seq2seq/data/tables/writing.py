"""Write rows as they were read, with more columns, batch by batch."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Protocol

import pyarrow
from pyarrow import parquet

from common.errors import ConfigError, one_line
from common.files import without_infinities
from seq2seq.data.tables.batch import Batch, TableFile
from seq2seq.data.tables.json_rows import JsonFile

Columns = Mapping[str, Sequence[Any]]


class Writer(Protocol):
    """Writes the rows of a table to a file.

    file: open for writing bytes; it stays open.
    table: what is read.
    kind: the format.
    more: the names of further columns: the first holds texts, the others numbers; any may hold nulls.
    """

    def __init__(self, file: BinaryIO, table: TableFile, kind: str, more: Sequence[str]): ...

    def write(self, batch: Batch, more: Columns) -> None:
        """Write consecutive rows. more: further columns, name -> cells."""

    def close(self) -> None:
        """Write what is left."""


class SeparatedWriter:
    """CSV, or TSV in which quotes are text if they were text in the file that was read."""

    def __init__(self, file: BinaryIO, table: TableFile, kind: str, more: Sequence[str]):
        source = table.source
        given = getattr(table, "delimiter", None)
        delimiter = given if given and source.kind == kind else "\t" if kind == "tsv" else ","
        raw = source.kind == kind and not getattr(table, "quoted", True)
        quoting = {"quoting": csv.QUOTE_NONE, "quotechar": None} if raw else {}
        # Half a character, which JSON may hold, cannot be encoded.
        self.text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="", write_through=True)
        self.writer = csv.writer(_Lines(self.text), delimiter=delimiter, lineterminator="\r\n", **quoting)
        self.columns = columns_of(table)
        self.writer.writerow([*self.columns, *more])

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
            line = json_text({**row, **dict(zip(more, cells, strict=True))})
            before = (",\n" if self.rows else "\n") if self.array else ""
            self.file.write((before + line + ("" if self.array else "\n")).encode())
            self.rows += 1

    def close(self) -> None:
        if self.array:
            self.file.write(b"\n]\n")


class ParquetWriter:
    """Parquet. Columns of CSV are texts; the types of JSON's are those that fit all rows, which are read for that."""

    def __init__(self, file: BinaryIO, table: TableFile, kind: str, more: Sequence[str]):
        self.columns = columns_of(table)
        if isinstance(table, JsonFile):
            schema = _schema_of(table, self.columns)
        elif hasattr(table, "file"):
            schema = table.file.schema_arrow
        else:
            schema = pyarrow.schema([(name, pyarrow.string()) for name in unique(self.columns)])
        for number, name in enumerate(more):
            schema = schema.append(pyarrow.field(name, pyarrow.float64() if number else pyarrow.string()))
        self.writer = parquet.ParquetWriter(file, schema)

    def write(self, batch: Batch, more: Columns) -> None:
        schema = self.writer.schema
        try:
            if isinstance(batch.raw, pyarrow.RecordBatch):
                columns = [*batch.raw.columns, *map(pyarrow.array, more.values())]
            else:
                columns = [*zip(*lists(batch, self.columns), strict=True), *more.values()]
            arrays = [
                cells.cast(field.type) if isinstance(cells, pyarrow.Array) else pyarrow.array(cells, field.type)
                for cells, field in zip(columns, schema, strict=True)
            ]
            self.writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
        except (ValueError, TypeError, pyarrow.ArrowException) as error:
            raise ConfigError(f"rows cannot be written as parquet: {one_line(error)}; choose another format") from None

    def close(self) -> None:
        self.writer.close()


def _schema_of(table: JsonFile, columns: Sequence[str]) -> pyarrow.Schema:
    """Return types that fit all rows. Raises ConfigError if there are none."""
    schema = pyarrow.schema([(name, pyarrow.null()) for name in columns])
    try:
        for batch in table.batches([]):
            arrays = [pyarrow.array([row.get(name) for row in batch.raw]) for name in columns]
            found = pyarrow.schema(list(zip(columns, (each.type for each in arrays), strict=True)))
            schema = pyarrow.unify_schemas([schema, found], promote_options="permissive")
    except (ValueError, TypeError, pyarrow.ArrowException) as error:
        raise ConfigError(
            f"{table.source.place} has columns of different types, which parquet cannot hold: {one_line(error)}; "
            "choose another format for --out"
        ) from None
    return schema


WRITERS = {
    "csv": SeparatedWriter,
    "tsv": SeparatedWriter,
    "jsonl": JsonLinesWriter,
    "json": JsonLinesWriter,
    "parquet": ParquetWriter,
}


def columns_of(table: TableFile) -> list[str]:
    """Return the columns of all rows, also of those of JSON that come late."""
    return table.all_columns if isinstance(table, JsonFile) else table.columns


def lists(batch: Batch, columns: Sequence[str]) -> list[Sequence[Any]]:
    """Return the rows of a batch as lists, in the order of the columns."""
    if isinstance(batch.raw, pyarrow.RecordBatch):
        return list(zip(*(cells.to_pylist() for cells in batch.raw.columns), strict=True))
    return [row if isinstance(row, list) else [row.get(name) for name in columns] for row in batch.raw]


def objects(batch: Batch, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a batch as objects."""
    names, rows = unique(columns), lists(batch, columns) if isinstance(batch.raw, pyarrow.RecordBatch) else batch.raw
    return [row if isinstance(row, dict) else dict(zip(names, row, strict=True)) for row in rows]


def unique(columns: Sequence[str]) -> list[str]:
    """Return the names of columns; those without a name of their own get their number."""
    return [
        name if name and name not in columns[: number - 1] else f"{name} (column {number})".strip()
        for number, name in enumerate(columns, 1)
    ]


def json_text(value: Any) -> str:
    """Return a row or a cell as JSON; without nan, which JSON does not have, and with half a character escaped."""
    value = without_infinities(value)
    text = json.dumps(value, ensure_ascii=False, default=_text)
    return text if _encodes(text) else json.dumps(value, default=_text)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: Any) -> str:
    """Return a value that JSON does not have as text."""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def cell_text(cell: Any) -> str:
    """Return a cell as CSV has it."""
    if cell is None or isinstance(cell, str):
        return cell or ""
    if isinstance(cell, float):
        return "" if math.isnan(cell) else str(cell)
    return json_text(cell) if isinstance(cell, bool | list | dict) else _text(cell)
