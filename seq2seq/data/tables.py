"""Read rows from CSV, TSV, JSON lines, a JSON array or parquet. A damaged file raises a one-line ConfigError."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow
from datasets import Dataset
from pyarrow import parquet

from common.errors import ConfigError, one_line
from common.files import kind_of

csv.field_size_limit(2**31 - 1)  # some passages exceed the default of 128 KiB


def read_table(path: str | Path, key: str, text_only: bool = False) -> Dataset:
    """Return the rows of a .csv, .tsv, .jsonl, .json or .parquet file, in its order.

    Cells of CSV and TSV are text, "" if they are empty; TSV has no quoting. Other cells keep the types of the file.

    key: the configuration key that errors name.
    text_only: True to turn every cell into text: null into "", lists and objects into JSON.
    Raises ConfigError for a file that is missing, empty, not UTF-8, damaged or of another type.
    """
    path = Path(path)
    place = f"{key}: {path}"
    try:
        missing = not path.exists()
    except (OSError, ValueError) as error:  # a name that is too long
        raise ConfigError(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if missing:
        raise ConfigError(f"{place} does not exist")
    kind = kind_of(path)
    if kind != "a file":
        raise ConfigError(f"{place} is {kind}; it must be a file")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise ConfigError(f"{place} ends with {path.suffix!r}; it must be one of {', '.join(READERS)}")
    try:
        columns = read(path, place)
        if text_only:
            columns = _as_texts(columns.to_pydict() if isinstance(columns, pyarrow.Table) else columns)
        rows = Dataset(columns if isinstance(columns, pyarrow.Table) else _to_table(columns, place))
    except ConfigError:
        raise
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise ConfigError(f"{place} cannot be read: {one_line(error)}") from None
    if len(rows) == 0:
        raise ConfigError(f"{place} holds no rows")
    return rows


def _read_csv(path: Path, place: str) -> dict[str, list[str]]:
    return _read_separated(path, place, strict=True)


def _read_tsv(path: Path, place: str) -> dict[str, list[str]]:
    return _read_separated(path, place, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_separated(path: Path, place: str, **dialect) -> dict[str, list[str]]:
    reader = csv.reader(io.StringIO(_text(path, place), newline=""), **dialect)
    try:
        names = next(reader, [])
        if len(set(names)) < len(names):
            raise ConfigError(f"{place}, line 1: two columns have the same name: {', '.join(names)}")
        rows = []
        for row in reader:
            if row and len(row) != len(names):
                raise ConfigError(f"{place}, line {reader.line_num}: {len(row)} cells; the header has {len(names)}")
            rows.append(row)
    except csv.Error as error:
        raise ConfigError(f"{place}, line {reader.line_num}: {error}") from None
    return {name: [row[i] for row in rows if row] for i, name in enumerate(names)}


def _read_json(path: Path, place: str) -> dict[str, list]:
    rows = []
    for where, row in _json_values(_text(path, place), place):
        if not isinstance(row, dict):
            raise ConfigError(f"{place}, {where}: {json.dumps(row)[:40]} is not an object with a value for each column")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _json_values(text: str, place: str) -> Iterator[tuple[str, object]]:
    """Yield ("line 3", value) for JSON lines, ("row 3", value) for an array."""
    if text.lstrip().startswith("["):
        for number, row in enumerate(_parse(text, place), 1):
            yield f"row {number}", row
        return
    for number, line in enumerate(text.split("\n"), 1):  # splitlines also splits at characters that JSON allows in text
        if line.strip():
            yield f"line {number}", _parse(line, f"{place}, line {number}")


def _parse(text: str, place: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        within = f" (line {error.lineno})" if error.lineno > 1 else ""
        raise ConfigError(f"{place}: invalid JSON: {error.msg} at character {error.colno}{within}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{place}: invalid JSON: {one_line(error)}") from None


def _read_parquet(path: Path, place: str) -> pyarrow.Table:
    table = parquet.ParquetFile(path).read()  # read_table would turn directories such as "seed=1" into columns
    return table.replace_schema_metadata(None)  # drops features of other versions of datasets, and pandas' index


def _text(path: Path, place: str) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{place} is not UTF-8: byte {error.start} (line {line}); save it as UTF-8") from None


def _to_table(columns: dict[str, list], place: str) -> pyarrow.Table:
    arrays = {}
    for name, values in columns.items():
        try:
            arrays[name] = pyarrow.array(values)
        except (ValueError, TypeError, OverflowError, pyarrow.ArrowException) as error:
            raise ConfigError(f"{place}: column {name} has values of different types: {one_line(error)}") from None
    return pyarrow.table(arrays)


def _as_texts(columns: dict[str, list]) -> dict[str, list[str]]:
    def text(value) -> str:
        if value is None:
            return ""
        return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)

    return {name: [text(value) for value in values] for name, values in columns.items()}


READERS = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_json,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
