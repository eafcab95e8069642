"""Reads a split of a published data set from a local copy, in whichever layout it is, with the hub's columns."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import datasets
import pyarrow
from datasets import Dataset

from common.errors import ConfigError, one_line, shortened
from common.json_text import object_in
from seq2seq.data.layouts.msr import is_msr, msr_rows
from seq2seq.data.layouts.nested import flattened
from seq2seq.data.layouts.originals import ORIGINALS, Original
from seq2seq.data.layouts.places import describe, files_of
from seq2seq.data.layouts.plain_tsv import read_plain_tsv
from seq2seq.data.tables import read_table

SHOWN = 10  # columns that an error shows


def local_rows(
    data_dir: Path, family: str, config: str, task: str, split: str, needed: Sequence[str], alone: bool
) -> tuple[Dataset, str]:
    """Return (rows of a split with the needed columns, place that messages name).

    family, config: the data set's name on the hub without its owner, and its configuration.
    task: the task's name.
    needed: the hub's names of the columns.
    alone: True if the run has only one task.
    Raises ConfigError if files are missing, cannot be read, do not fit together or have other columns.
    """
    original = ORIGINALS[task]
    files = files_of(data_dir, family, config, original, split, alone)
    place = describe(files)
    if is_msr(files[0]):
        rows, place = msr_rows(
            files[0],
            split,
            lambda file, more: _read(file, f"data_dir: {file}", original, (*needed, *more), task)[0],
        )
        return rows.select_columns(list(needed)), place
    tables, unit = [], None
    for file in files:
        rows, unit = _read(file, f"data_dir: {file}", original, needed, task)
        tables.append(with_columns(rows, needed, task, f"data_dir: {file}"))
    try:
        rows = datasets.concatenate_datasets(tables)
    except ValueError as error:
        raise ConfigError(f"{place} do not fit together: {one_line(error)}") from None
    return rows, f"{place} (a row for each {unit})" if unit else place


def _read(file: Path, place: str, original: Original, needed: Sequence[str], task: str) -> tuple[Dataset, str | None]:
    """Return (rows, what a row is if it is not an object of the file)."""
    if file.is_dir():
        return _saved(file, place), None
    if file.suffix.lower() in (".tsv", ".txt"):
        choose = partial(_chosen, needed=needed, columns=original.columns, place=place, task=task)
        return read_plain_tsv(file, place, choose, original.header), None
    nested = original.nested
    document = object_in(file) if nested and task == "squad" and file.suffix.lower() == ".json" else None
    if document and nested.columns[0] in document:  # one object, perhaps over many lines
        return _table(flattened([document], nested, place), place), nested.unit
    rows = read_table(file, "data_dir")
    if nested and set(nested.columns) <= set(rows.column_names) and not set(needed) <= set(rows.column_names):
        return _table(flattened(rows.to_list(), nested, place), place), nested.unit
    return rows, None


def _saved(folder: Path, place: str) -> Dataset:
    """Return the rows that save_to_disk wrote to a folder."""
    try:
        rows = datasets.load_from_disk(str(folder))
    except Exception as error:  # missing or damaged files, features of another version
        raise ConfigError(f"{place} cannot be read: {one_line(error)}") from None
    if len(rows) == 0:
        raise ConfigError(f"{place} holds no rows")
    return rows.with_format(None)


def _table(rows: list[dict], place: str) -> Dataset:
    if not rows:
        raise ConfigError(f"{place} holds no rows")
    try:
        return Dataset(pyarrow.Table.from_pylist(rows))
    except pyarrow.ArrowException as error:
        raise ConfigError(f"{place} has values of different types: {one_line(error)}") from None


def with_columns(rows: Dataset, needed: Sequence[str], task: str, place: str) -> Dataset:
    """Return the needed columns under the hub's names. Raises ConfigError if one is missing, with those that there are.

    needed, task: see `local_rows`.
    """
    chosen = _chosen(rows.column_names, needed, ORIGINALS[task].columns, place, task)
    return rows.select_columns(list(chosen)).rename_columns(chosen)


def _chosen(
    names: Sequence[str], needed: Sequence[str], columns: Mapping[str, Sequence[str]], place: str, task: str
) -> dict[str, str]:
    """Return the file's name -> the hub's name of each needed column."""
    chosen, missing = {}, []
    for column in needed:
        known = (column, *columns.get(column, ()))
        found = next((name for name in known if name in names), None)
        chosen |= {found: column} if found else {}
        missing += [] if found else [" or ".join(known)]
    if missing:
        have = shortened(", ".join(names[:SHOWN]), 300) + (", .." if len(names) > SHOWN else "")
        raise ConfigError(f"{place} has no column {', '.join(missing)}, which {task} needs; it has {have}")
    return chosen
