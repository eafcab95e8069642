"""Files that are always whole: written under another name, then renamed."""

import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from common.errors import ConfigError

FULL = errno.ENOSPC, errno.EDQUOT
# What libraries that do not raise OSError say about a full disk; the last three are torch's.
FULL_WORDS = (
    *("No space left on device", "Disk quota exceeded", "os error 28"),
    *("PytorchStreamWriter failed", "iostream error", "unexpected pos "),
)
KINDS = {
    stat.S_IFREG: "a file",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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
        if isinstance(error, ConfigError):
            raise
        if is_full(error) or (isinstance(error, OSError) and _is_about(error, path, unfinished)):
            where = f"{key}: " if key else ""
            what = with_free_space(getattr(error, "strerror", None) or str(error), error, path)
            raise ConfigError(f"{where}{path} cannot be written: {what}") from None
        raise


def _is_about(error: OSError, path: Path, unfinished: Path) -> bool:
    """Return False for an error about another file, one that the block reads, say."""
    return error.filename is None or Path(os.fsdecode(error.filename)) in (unfinished, path, *path.parents)


def is_full(error: BaseException) -> bool:
    """Return True if an error, of the system or of a library, says that the disk is full."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return isinstance(error, Exception) and any(words in str(error) for words in FULL_WORDS)


def with_free_space(message: str, error: BaseException, path: str | os.PathLike) -> str:
    """Return a message about a file, followed by the space that is left there if the disk is full."""
    if not is_full(error):
        return message
    place = existing(Path(path).absolute())
    with suppress(OSError):
        return (
            f"{message}, {shutil.disk_usage(place).free / 2**20:.1f} MiB are free in {place}; make room and try again"
        )
    return message


def need_space(path: Path, size: int) -> None:
    """Raise the OSError of a full disk if fewer than `size` bytes are free, for files that are written as memory."""
    if shutil.disk_usage(existing(path)).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def existing(path: Path) -> Path:
    """Return `path`, or the closest directory above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def write_file(path: str | os.PathLike, content: str | bytes, *, key: str | None = None) -> None:
    """Write text (as UTF-8) or bytes; see `replacing`."""
    with replacing(path, key) as unfinished:
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_json(path: str | os.PathLike, content: object, *, sort_keys: bool = False, key: str | None = None) -> None:
    """Write `content` as indented JSON, with null for numbers that are not finite; see `replacing`."""
    text = json.dumps(without_infinities(content), indent=2, sort_keys=sort_keys, allow_nan=False)
    write_file(path, text + "\n", key=key)


def without_infinities(value: Any) -> Any:
    """Return a copy of a JSON value with None for nan and infinity, which JSON cannot represent, at any depth."""
    if isinstance(value, dict):
        return {name: without_infinities(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def kind_of(path: str | os.PathLike) -> str:
    """Return "a file", "a directory", "a pipe", "a socket" or "a device". Raises OSError if there is nothing."""
    return KINDS.get(stat.S_IFMT(os.stat(path).st_mode), "something else")


def read_bytes(path: str | os.PathLike) -> bytes:
    """Return the content of a file.

    Raises ConfigError if there is none or it cannot be read, also for what is no file: a pipe would be waited for.
    """
    try:
        kind = kind_of(path)
        if kind != "a file":
            raise ConfigError(f"{os.fspath(path)} is {kind}; it must be a file")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{os.fspath(path)} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def check_writable(directory: Path, key: str = "output_dir") -> None:
    """Raise ConfigError unless `directory` can be written or created. key: the setting that names it."""
    try:
        there = existing(directory)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a NUL
        raise ConfigError(
            f"{key} is {str(directory)!r}: {getattr(error, 'strerror', None) or error}; choose another"
        ) from None
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(
            f"{key} is {str(directory)!r}, but {str(there)!r} is not a writable directory; choose another"
        )
