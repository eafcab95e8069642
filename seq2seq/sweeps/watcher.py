"""Kills a group of processes once the process that started it has died, however that was: watcher.py FD GROUP

It is run by its path, so that nothing else is imported, and is nobody's child: Ray kills those of a worker, not theirs.
"""

import os
import signal
import sys
from contextlib import suppress

DONE = b"-"


def main(pipe: int, group: int) -> None:
    """Return at once, and leave a process behind that watches.

    pipe: file descriptor from which DONE is read if nothing is to be killed; it ends if the other process dies.
    group: the process group.
    """
    if os.fork():
        return
    os.setsid()
    if os.read(pipe, 1) != DONE:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
