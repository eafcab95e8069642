"""The boundary of an entry point: every error leaves it as one line and an exit status."""

import errno
import io
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable

from common.errors import ConfigError, RunFailed, Terminated, one_line, shortened, type_and_line
from common.files import is_full, with_free_space
from common.secrets import masked, remember_arguments
from common.termination import termination

SWITCH = "--traceback"
TOO_LARGE = "can't allocate memory", "Storage size calculation overflowed", "integer multiplication overflow"
WRONG_INPUT, FAULT, BROKEN_PIPE, INTERRUPTED, TERMINATED = 2, 1, 141, 130, 143


def guarded(program: Callable[[list[str]], object], argv: list[str], interrupted: str) -> int:
    """Run a program and return its exit status; an error is printed to standard error, in one line.

    program: called with the arguments; what it returns does not count.
    argv: the command line without the name of the program. The switch --traceback shows errors with their tracebacks.
    interrupted: the line for Ctrl-C.
    """
    shown = SWITCH in argv
    remember_arguments(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows ASCII only gets all the rest
    try:
        with termination.handled():
            program([argument for argument in argv if argument != SWITCH])
        sys.stdout.flush()  # else a full disk or a closed pipe would be noticed only after this
    except (Exception, KeyboardInterrupt, Terminated) as error:
        line, status = _outcome(error, interrupted)
        if isinstance(error, BrokenPipeError):
            _discard_output()
        if shown:
            _print(masked(_whole(error)))
        elif line is None:
            _print(shortened(masked(_fault(error))))
        elif is_first_process():
            _print(shortened(masked(line)))
        return status
    return 0


def is_first_process() -> bool:
    """Return True in the first process of a distributed run, or in the only one."""
    return os.environ.get("RANK", "0") == "0"


def _outcome(error: BaseException, interrupted: str) -> tuple[str | None, int]:
    """Return the line to print, None for a fault of the program, and the exit status."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or interrupted, INTERRUPTED
    if isinstance(error, Terminated):
        return str(error), TERMINATED
    if isinstance(error, RunFailed):
        return f"error: {error}", FAULT
    if isinstance(error, ConfigError):
        return f"error: {error}", WRONG_INPUT
    if isinstance(error, BrokenPipeError):
        return "error: the output was closed before all of it was written", BROKEN_PIPE
    if isinstance(error, OSError) or is_full(error):
        return f"error: {_about_file(error)}", WRONG_INPUT
    if isinstance(error, UnicodeError):
        return f"error: a text cannot be read or written: {one_line(error)}", WRONG_INPUT
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return (
            f"error: the memory does not suffice ({one_line(error)}); choose a smaller model, "
            "per_device_train_batch_size or max_source_length"
        ), WRONG_INPUT
    return None, FAULT


def _about_file(error: BaseException) -> str:
    filename = getattr(error, "filename", None)
    what = getattr(error, "strerror", None) or one_line(error)
    if filename is None or isinstance(filename, int):
        return with_free_space(what, error, os.getcwd())
    name = os.fsdecode(filename)
    return f"{name}: {with_free_space(what, error, name)}"


def _is_out_of_memory(error: BaseException) -> bool:
    """Return True for the errors that torch raises instead of MemoryError."""
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in TOO_LARGE)
    )


def _fault(error: BaseException) -> str:
    """Write the traceback of a fault of the program into a file, and return the line that says so."""
    what = f"error: this is a fault of the program, not of its input: {type_and_line(error)}"
    text = f"{' '.join(sys.argv)}\nPython {platform.python_version()}, {platform.platform()}\n\n{_whole(error)}"
    try:
        handle, name = tempfile.mkstemp(prefix="t5-tensor-lab-fault-", suffix=".txt")
        with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(masked(text))
    except OSError:
        return f"{what}; {SWITCH} shows where"
    return f"{what}; the traceback is in {name}"


def _whole(error: BaseException) -> str:
    """Return the traceback, including those of the errors that led to this one."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__suppress_context__ = False
        cause = cause.__cause__ or cause.__context__
    return "".join(traceback.format_exception(error)).rstrip()


def _print(text: str) -> None:
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC, errno.EIO):
            raise


def _discard_output() -> None:
    """Point standard output to nowhere, as the interpreter would try to write the rest of it when it ends."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # it is no file, as in a test
        return
