"""Rows that cannot be used: all are found before the first is reported."""

from collections.abc import Mapping

from common.errors import ConfigError, shortened
from seq2seq.data.tables import TableFile, where

SHOWN = 20
LONGEST = 85  # characters about one of several: a message has 2,000


class BadRows:
    """The rows of a file that cannot be used, and why.

    count: their number.
    """

    def __init__(self, table: TableFile):
        self.table, self.count, self.first = table, 0, {}

    def add(self, number: int, problems: Mapping[int, str]) -> None:
        """Note the problems of a batch. number: of its first row. problems: place in the batch -> what is wrong."""
        self.count += len(problems)
        for place in sorted(problems)[: SHOWN - len(self.first)]:
            self.first[number + place] = problems[place]

    def message(self, total: int) -> str:
        """Say what is wrong with the first rows, and how many there are. total: the number of rows in the file."""
        shown = where(self.table, self.first)
        if self.count == 1:
            return f"{self.table.source.place}, {shown[0]}"
        more = f"; and {self.count - len(shown):,} more" if self.count > len(shown) else ""
        return (
            f"{self.table.source.place}: {self.count:,} of {total:,} rows cannot be used: "
            f"{'; '.join(shortened(each, LONGEST) for each in shown)}{more}"
        )

    def report(self, total: int, skip: bool) -> list[str]:
        """Return the warning that the rows are skipped, if there are any. Raises ConfigError unless they are."""
        if not self.count:
            return []
        if not skip:
            it = "it" if self.count == 1 else "them"
            raise ConfigError(f'{self.message(total)}; mend {it}, or set on_bad_rows to "skip"')
        if self.count == total:
            raise ConfigError(f"{self.message(total)}; no row is left")
        return [f"{self.message(total)}; skipped"]
