"""Files that are always whole: written under another name, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigError


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path in the same directory; rename it to `path` when the block succeeds, else remove it.

    Missing parent directories are created. The temporary name starts with a dot and keeps the suffix. A process that
    is killed leaves the previous `path` untouched. Raises ConfigError if the file cannot be written.
    """
    path = Path(path)
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield unfinished
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from None


def write_file(path: str | os.PathLike, content: str | bytes) -> None:
    """Write text (as UTF-8) or bytes. Raises ConfigError if the file cannot be written."""
    with replacing(path) as unfinished:
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: str | os.PathLike, content: object, *, sort_keys: bool = False) -> None:
    """Write `content` as indented JSON. Raises ConfigError if the file cannot be written."""
    write_file(path, json.dumps(content, indent=2, sort_keys=sort_keys) + "\n")
