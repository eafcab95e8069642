"""Parquet."""

from collections.abc import Iterator, Sequence

import pyarrow
from pyarrow import parquet

from common.errors import ConfigError, one_line
from seq2seq.data.tables.batch import ROWS, Batch
from seq2seq.data.tables.sources import Source


class ParquetFile:
    """Rows of typed cells. Only the columns that are asked for are read."""

    def __init__(self, source: Source):
        self.source, self.hint = source, ""
        try:
            # ParquetFile, as read_table would turn directories such as "seed=1" into columns.
            self.file = parquet.ParquetFile(source.path)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise self._unreadable(error) from None
        self.columns = self.file.schema_arrow.names

    def has(self, column: str) -> bool:
        return column in self.columns

    def batches(self, columns: Sequence[str], whole: bool = False) -> Iterator[Batch]:
        twice = next((name for name in columns if self.columns.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"{self.source.place} has two columns with the name {twice!r}")
        number, wanted = 1, [name for name in columns if name in self.columns]
        try:
            # Without columns, batches would not know how many rows they have.
            for batch in self.file.iter_batches(ROWS, columns=None if whole else wanted or self.columns[:1]):
                missing = {name: pyarrow.nulls(len(batch)) for name in columns if name not in self.columns}
                yield Batch(number, {name: batch.column(name) for name in wanted} | missing, batch)
                number += len(batch)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise self._unreadable(error) from None

    def lines_of(self, rows: Sequence[int]) -> dict[int, int]:
        return {}

    def _unreadable(self, error: Exception) -> ConfigError:
        return ConfigError(f"{self.source.place} cannot be read: {one_line(error)}")
