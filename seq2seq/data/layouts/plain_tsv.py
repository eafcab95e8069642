"""GLUE's TSV: a line is a row, a tab ends a cell, and quotes are text like any other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow
from datasets import Dataset
from pyarrow import csv

from common.errors import ConfigError, one_line, shortened, warn_once

LONGEST_LINE = 2**24  # bytes


def read_plain_tsv(
    path: Path, place: str, choose: Callable[[Sequence[str]], Mapping[str, str]], header: Sequence[str] | None = None
) -> Dataset:
    """Return columns of a TSV file as text; other columns are not even decoded.

    The original files have a few broken rows; they are skipped, with a warning.

    place: what messages name.
    choose: takes the file's columns, returns those to read, each with its new name; raises ConfigError.
    header: the columns, if the file has no line that names them.
    Raises ConfigError for a file that cannot be read, or has no whole row.
    """
    first, rest = _first_line(path, place)
    if header is None or set(first) & set(header):
        names, skipped = first, 1
    else:
        names, skipped = list(header), 0
    if not any(names) or (skipped and not rest):
        raise ConfigError(f"{place} holds no rows")
    chosen = choose(names)
    broken: list[str] = []
    table = _read(path, place, names, skipped, list(chosen), broken)
    if broken:
        counts = (
            f"{len(broken)} rows do not have the {len(names)} cells of the columns {shortened(', '.join(names), 200)}"
        )
        if not len(table):
            raise ConfigError(f"{place}: all {counts}")
        warn_once(f"{place}: {counts}, and are skipped; the first begins {shortened(broken[0], 40)}")
    if not len(table):
        raise ConfigError(f"{place} holds no rows")
    return Dataset(table.select(list(chosen)).rename_columns(list(chosen.values())))


def _first_line(path: Path, place: str) -> tuple[list[str], bool]:
    """Return (the cells of the first line, True if anything follows it)."""
    try:
        with path.open("rb") as file:
            line, rest = file.readline(LONGEST_LINE), file.read(1)
        return line.decode("utf-8-sig").rstrip("\r\n").split("\t"), bool(rest)
    except UnicodeDecodeError:
        raise ConfigError(f"{place} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror}") from None


def _read(path: Path, place: str, names: list[str], skipped: int, used: list[str], broken: list[str]) -> pyarrow.Table:
    """Return the used columns; lines with more or fewer cells than names are added to `broken`."""

    def skip(row: csv.InvalidRow) -> str:
        broken.append(row.text)
        return "skip"

    try:
        return csv.read_csv(
            path,
            csv.ReadOptions(column_names=names, skip_rows=skipped, use_threads=False, block_size=LONGEST_LINE),
            csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=skip),
            csv.ConvertOptions(
                include_columns=used, column_types=dict.fromkeys(used, pyarrow.string()), strings_can_be_null=False
            ),
        )
    except (OSError, pyarrow.ArrowException) as error:
        if "invalid UTF8" in str(error):
            raise ConfigError(f"{place} is not UTF-8; save it as UTF-8") from None
        raise ConfigError(f"{place} cannot be read: {one_line(error)}") from None
