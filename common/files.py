"""Files that are always whole: written under another name, then renamed."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.errors import ConfigError


@contextmanager
def replacing(path: str | os.PathLike, key: str | None = None) -> Iterator[Path]:
    """Yield a temporary path in the same directory; rename it to `path` when the block succeeds, else remove it.

    Missing parent directories are created. The temporary name starts with a dot, keeps the suffix and is not used by
    another process. A process that is killed leaves the previous `path` untouched.
    key: the setting that names the file or its directory, for the message.
    Raises ConfigError if the file cannot be written.
    """
    path = Path(path)
    unfinished = path.parent / f".unfinished-{os.getpid()}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.replace(path)
    except BaseException as error:
        with suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError) and _is_about(error, path, unfinished):
            where = f"{key}: " if key else ""
            raise ConfigError(f"{where}{path} cannot be written: {error.strerror or error}") from None
        raise


def _is_about(error: OSError, path: Path, unfinished: Path) -> bool:
    """Return False for an error about another file, one that the block reads, say."""
    return error.filename is None or Path(os.fsdecode(error.filename)) in (unfinished, path, *path.parents)


def write_file(path: str | os.PathLike, content: str | bytes, *, key: str | None = None) -> None:
    """Write text (as UTF-8) or bytes; see `replacing`."""
    with replacing(path, key) as unfinished:
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: str | os.PathLike, content: object, *, sort_keys: bool = False, key: str | None = None) -> None:
    """Write `content` as indented JSON; see `replacing`."""
    write_file(path, json.dumps(content, indent=2, sort_keys=sort_keys) + "\n", key=key)


def check_writable(directory: Path, key: str = "output_dir") -> None:
    """Raise ConfigError unless `directory` can be written or created. key: the setting that names it."""
    existing = directory
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(
            f"{key} is {str(directory)!r}, but {str(existing)!r} is not a writable directory; choose another"
        )
