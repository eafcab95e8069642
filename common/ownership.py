"""One process owns a directory: a lock that ends with the process, however it ends."""

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Self

from common.errors import ConfigError, warn_once

LOCK = ".lock"


class Ownership:
    """The right to write to a directory, held from `acquire` to `release` or the end of the process."""

    def __init__(self, directory: str | os.PathLike, key: str = "output_dir"):
        """Take a directory, which need not exist yet; nothing is written.

        key: the setting that names it, for messages.
        """
        self.directory, self.key = Path(directory), key
        self._file: int | None = None
        self._identity: tuple[int, int] | None = None
        self._created = False

    def acquire(self) -> None:
        """Create the directory if necessary, and take it.

        Raises ConfigError if another process owns it, or if it cannot be written.
        """
        path = self.directory / LOCK
        try:
            self._created = not self.directory.exists()
            self.directory.mkdir(parents=True, exist_ok=True)
            while True:
                file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
                if not _locked(file):
                    holder = os.read(file, 200).decode(errors="replace")
                    os.close(file)
                    raise ConfigError(self._refusal(holder))
                if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                    break
                os.close(file)  # the owner before has just removed it
            os.ftruncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        except OSError as error:
            raise ConfigError(
                f"{self.key} is {str(self.directory)!r}, which cannot be written: {error.strerror}"
            ) from None
        self._file, self._identity = file, _identity(self.directory)

    def release(self) -> None:
        """Give the directory back, if it is owned, without the lock; one that was created and is empty is removed."""
        if self._file is not None:
            with suppress(OSError):
                if os.path.samestat(os.fstat(self._file), (self.directory / LOCK).stat()):
                    (self.directory / LOCK).unlink()
                    if self._created:
                        self.directory.rmdir()
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Raise ConfigError if the directory is no longer the one that was acquired; without `acquire`, do nothing."""
        if self._identity is not None and _identity(self.directory) != self._identity:
            raise ConfigError(
                f"{self.key} {str(self.directory)!r} was removed or replaced while the run was writing to it; nothing "
                "more is written: start the run again"
            )

    def refuse_second(self) -> None:
        """Raise ConfigError if another process owns the directory now."""
        try:
            file = os.open(self.directory / LOCK, os.O_RDONLY)
        except OSError:
            return  # nobody does
        try:
            if not _locked(file):
                raise ConfigError(self._refusal(os.read(file, 200).decode(errors="replace")))
        finally:
            os.close(file)

    def _refusal(self, holder: str) -> str:
        return (
            f"{self.key} is {str(self.directory)!r}, to which another run is writing ({holder or 'another process'}); "
            "wait until it has ended, or choose another directory"
        )


def _locked(file: int) -> bool:
    """Lock an open file; return False if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        warn_once(f"this file system has no locks ({error.strerror}); do not start two runs in one directory")
    return True


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        status = directory.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
