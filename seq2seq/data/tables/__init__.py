"""Read rows from CSV, TSV, JSON lines, a JSON array or parquet. A damaged file raises a one-line ConfigError."""

from pathlib import Path

import pyarrow
from datasets import Dataset

from common.errors import ConfigError, one_line, warn_once
from seq2seq.data.tables.batch import Batch, TableFile, where
from seq2seq.data.tables.json_rows import JsonFile
from seq2seq.data.tables.parquet_rows import ParquetFile
from seq2seq.data.tables.separated import SeparatedFile
from seq2seq.data.tables.sources import KINDS, Form, Source

__all__ = ["KINDS", "Batch", "Form", "Source", "TableFile", "open_table", "read_table", "table_of", "where"]

READERS = {"csv": SeparatedFile, "tsv": SeparatedFile, "json": JsonFile, "jsonl": JsonFile, "parquet": ParquetFile}


def open_table(path: str | Path, key: str, form: Form | None = None, name: str | None = None) -> TableFile:
    """Open a file of rows, of which only the first are read.

    key: the configuration key that errors name.
    form: how the file is written; null: found from its content and name.
    name: what errors call the file; null: its path.
    Raises ConfigError for a file that is missing, of another type, or cannot be decoded.
    """
    return table_of(Source(path, key, form or Form(), name))


def table_of(source: Source) -> TableFile:
    """Open a file of rows; see `open_table`."""
    return READERS[source.kind](source)


def read_table(path: str | Path, key: str) -> Dataset:
    """Return all rows and columns of a file as a Dataset, in its order.

    Cells of CSV and TSV are text, "" if they are empty. Other cells keep the types of the file.

    key: the configuration key that errors name.
    Raises ConfigError as `open_table` does, and for rows that are damaged.
    """
    table = open_table(path, key)
    parts, columns = [], table.all_columns if isinstance(table, JsonFile) else table.columns
    for batch in table.batches(columns, whole=True):
        for place, problem in batch.problems.items():
            raise ConfigError(f"{table.source.place}, {where(table, {batch.first + place: problem})[0]}")
        parts.append(batch)
    for note in table.source.notes:
        warn_once(note)
    if not parts:
        raise ConfigError(f"{table.source.place} holds no rows")
    if isinstance(table, ParquetFile):
        # Without metadata: features of other versions of datasets, and pandas' index.
        return Dataset(pyarrow.Table.from_batches([batch.raw for batch in parts]).replace_schema_metadata(None))
    if isinstance(table, JsonFile):
        cells = {name: [row.get(name) for batch in parts for row in batch.raw] for name in columns}
    else:
        cells = {name: [cell for batch in parts for cell in batch.columns[name]] for name in filter(None, columns)}
    return Dataset(_to_table(cells, table.source.place))


def _to_table(columns: dict[str, list], place: str) -> pyarrow.Table:
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pyarrow.array(values)
        except (ValueError, TypeError, OverflowError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{place}: column {name} has values of different types: {one_line(error)}") from None
    return pyarrow.table(arrays)
