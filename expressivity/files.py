"""Files that are always whole."""

import os
from pathlib import Path

from expressivity.errors import ExpressivityError


def write(path: str | os.PathLike, content: str | bytes) -> None:
    """To another name first, so that there is always a whole file."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_bytes(content if isinstance(content, bytes) else content.encode())
        unfinished.replace(path)
    except OSError as error:
        raise ExpressivityError(f"{path} cannot be written: {error.strerror or error}") from None
