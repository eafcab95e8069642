"""A part of gpu.py in a process of its own, which a time limit ends and whose end, however it comes, ends no other."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection

from tt_linear_checks import reason

from common.errors import ConfigError

# Children inherit the imports, which take longer than some parts. This process must never use CUDA: a child could not.
CONTEXT = multiprocessing.get_context("fork")


def rows_of(part: Callable[..., Iterator[tuple]], limit: float, *arguments) -> tuple[list[tuple], str | None]:
    """Return what `part(*arguments)` yields, and why it ended before its end; None if it did not."""
    ours, theirs = CONTEXT.Pipe(duplex=False)
    process = CONTEXT.Process(target=_send, args=(theirs, part, arguments))
    process.start()
    theirs.close()
    rows, failure, deadline = [], None, time.monotonic() + limit
    try:
        while ours.poll(max(0.0, deadline - time.monotonic())):
            kind, content = ours.recv()
            if kind != "row":
                failure = content
                break
            rows.append(content)
        else:
            failure = f"stopped after {limit:.0f} s"
    except EOFError:  # a fault in a library's own code
        process.join()
        failure = f"its process ended with status {process.exitcode}"
    finally:
        process.kill()
        process.join()
    return rows, failure


def _send(pipe: Connection, part: Callable[..., Iterator[tuple]], arguments: tuple) -> None:
    try:
        for row in part(*arguments):
            pipe.send(("row", row))
        pipe.send(("end", None))
    except Exception as error:  # of any kind: it becomes a line of the report
        pipe.send(("end", str(error) if isinstance(error, ConfigError) else reason(error)))
