"""A cache on disk of what was made from data: rows of the users' files, and tokens."""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow
from datasets import Dataset

from common.checksums import sha256_of
from common.errors import warn_once
from seq2seq.downloads import cache_directory

FORMAT = "3"  # increase this when what is cached changes
WARNINGS = b"warnings"


def cached(
    kind: str, fingerprint: str, make: Callable[[], tuple[pyarrow.Schema, Iterable[pyarrow.RecordBatch]]]
) -> tuple[Dataset, dict[bytes, bytes]]:
    """Return a data set from the cache, or make and keep it; and the metadata of its schema, which `Dataset` drops.

    kind: what it is, "tokens" or "rows"; the name of a directory in the cache.
    fingerprint: a hash of everything that the rows depend on.
    make: returns the schema and the rows.
    """
    directory = cache_directory() / kind
    try:
        directory.mkdir(parents=True, exist_ok=True)
        found = _found(directory, fingerprint)
        if found is not None:
            return found
        unfinished = directory / f".{os.getpid()}-{fingerprint}.arrow"
        try:
            schema, batches = make()
            with pyarrow.OSFile(str(unfinished), "wb") as file, pyarrow.ipc.new_stream(file, schema) as stream:
                for batch in batches:
                    stream.write_batch(batch)
            file = directory / f"{fingerprint}-{sha256_of(unfinished)}.arrow"
            return _opened(unfinished.replace(file))
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        warn_once(f"{kind} are not cached in {directory}: {error.strerror or error}")
        schema, batches = make()
        return as_dataset(pyarrow.Table.from_batches(batches, schema)), schema.metadata or {}


def as_dataset(table: pyarrow.Table) -> Dataset:
    """Return a table as a data set; by itself, `Dataset` would hash all of it."""
    return Dataset(table, fingerprint=secrets.token_hex(8))


def _opened(file: Path) -> tuple[Dataset, dict[bytes, bytes]]:
    with pyarrow.OSFile(str(file)) as opened:
        metadata = pyarrow.ipc.open_stream(opened).schema.metadata
    return Dataset.from_file(str(file)), metadata or {}


def _found(directory: Path, fingerprint: str) -> tuple[Dataset, dict[bytes, bytes]] | None:
    """Return what is cached, from a file whose name ends with the SHA-256 of its content; remove damaged files."""
    for file in directory.glob(f"{fingerprint}-*.arrow"):
        if file.stem.rpartition("-")[2] == sha256_of(file):
            return _opened(file)
        file.unlink(missing_ok=True)
    return None


def hash_of(value: object) -> str:
    """Return a hash of a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def cached_rows(facts: object, make: Callable[[], tuple[pyarrow.Table, list[str]]]) -> Dataset:
    """Return the rows of a file from the cache, or read it; print the warnings that reading it gave.

    facts: everything that its rows and warnings depend on, such as a hash of its content, as JSON values.
    make: reads the file; returns its rows and the warnings.
    """
    key = hash_of([FORMAT, facts])

    def made() -> tuple[pyarrow.Schema, list[pyarrow.RecordBatch]]:
        table, warnings = make()
        table = table.replace_schema_metadata({WARNINGS: json.dumps(warnings)})
        return table.schema, table.to_batches()

    rows, metadata = cached("rows", key, made)
    for warning in json.loads(metadata.get(WARNINGS, "[]")):
        warn_once(warning)
    return rows
