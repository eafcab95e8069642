"""Rows as CSV."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

# A spreadsheet takes a cell that begins so for a formula, which may run programs and send data.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows, which have the same keys, as CSV: numbers with full precision, no text that is a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_harmless(rows[0]))
    writer.writerows(_harmless(row.values()) for row in rows)
    return out.getvalue()


def _harmless(cells: Iterable[object]) -> list[object]:
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell for cell in cells]
