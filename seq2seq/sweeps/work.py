"""What a worker does with a cell, in whichever process it lives."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from common.boundary import TERMINATED, guarded
from common.errors import ConfigError, RunFailed
from common.files import write_json
from common.json_text import object_in
from common.termination import SECONDS
from seq2seq.layout import CONFIGURATION, DIVERGED, RESULTS
from seq2seq.pipeline import run
from seq2seq.settings import Settings, build
from seq2seq.sweeps import watcher
from seq2seq.sweeps.baselines import run_baseline
from seq2seq.sweeps.cells import Cell

STARTED = "started"  # the first word of a log, once for each time that the cell was started
ROOT = Path(__file__).parents[2]
UNKNOWN = 255  # the status of a process whose parent, the server that forks, has died
LOOK = 0.2  # seconds between two looks at a launched process
STREAMS = 1, 2  # standard output and error
KEPT = {CONFIGURATION, RESULTS, DIVERGED}
LONGEST_LOG = 100_000  # characters that are searched for the error


@dataclass(frozen=True)
class Outcome:
    """How a cell ended.

    results: the content of its results.json; None if it has none.
    error: why it has no results, in one line.
    diverged: True if that is because its numbers did not stay finite, as they would not the next time.
    lost: True if its worker was lost, which says nothing about the cell.
    """

    cell: Cell
    results: dict[str, Any] | None = None
    error: str = ""
    diverged: bool = False
    lost: bool = False


def run_cell(cell: Cell, threads: int, keep: bool, callbacks: Sequence[TrainerCallback] = ()) -> int:
    """Run a cell in this process, and leave its results in its directory. Returns the exit status.

    threads: of torch.
    keep: False to remove model and predictions in the end.
    callbacks: of transformers' trainer.
    """

    def program(_: list[str]) -> None:
        settings = build(cell.values)
        torch.set_num_threads(threads)
        if cell.row.baseline is not None:
            run_baseline(cell.row.baseline, settings)
        elif cell.launch is not None:
            launch(cell, settings)
        else:
            run(settings, callbacks)
        tidy(cell.directory, keep)

    return guarded(program, [], "interrupted")


def launch(cell: Cell, settings: Settings) -> None:
    """Run a cell in several processes, by a program that starts them. Raises RunFailed if they fail."""
    file = cell.directory.with_name(f"{cell.directory.name}.json")
    write_json(file, {**settings.resolved(), "output_dir": str(cell.directory), "experiment_name": cell.row.name})
    command = [*shlex.split(cell.launch), str(ROOT / "run_seq2seq.py"), str(file)]
    try:
        process = subprocess.Popen(command, start_new_session=True)  # a group, which ends together
    except OSError as error:
        raise ConfigError(f"launch is {cell.launch!r}, which cannot be started: {error.strerror}") from None
    with ends_with_this(process):
        try:
            while process.poll() is None:
                time.sleep(LOOK)  # Ray's interrupt is seen between calls only, not in a longer one
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS)
            raise
    if process.returncode:
        raise RunFailed(error_in(cell.log, process.returncode))


@contextmanager
def ends_with_this(process: subprocess.Popen) -> Iterator[None]:
    """Kill what is left of the group of a process at the end of the block, or once this process has died."""
    pipe, held = os.pipe()
    try:
        subprocess.run([sys.executable, watcher.__file__, str(pipe), str(process.pid)], pass_fds=[pipe], check=True)
        os.close(pipe)
        yield
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            os.write(held, watcher.DONE)
        os.close(held)


def child(cell: Cell, threads: int, keep: bool, driver: Connection) -> None:
    """Run a cell as a process of its own, its output in a file, and end with the driver, however that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver, too, which ends this process by SIGTERM
    threading.Thread(target=_end_with, args=(driver,), daemon=True).start()
    with logged(cell):
        status = run_cell(cell, threads, keep)
    sys.exit(status)


@contextmanager
def logged(cell: Cell) -> Iterator[None]:
    """Append what the block prints to the cell's log, whether Python or a library prints it."""
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush(), sys.stderr.flush()
    before = [os.dup(stream) for stream in STREAMS]
    log = os.open(cell.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream in STREAMS:
        os.dup2(log, stream)
    os.close(log)
    try:
        print(f"{STARTED} by process {os.getpid()} on {socket.gethostname()}, {datetime.now():%Y-%m-%d %H:%M:%S}")
        yield
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        for stream, old in zip(STREAMS, before, strict=True):
            os.dup2(old, stream)
            os.close(old)


def outcome_of(cell: Cell, status: int) -> Outcome:
    """Return how a cell ended whose process has ended.

    status: 0 if it is not known; negative is the signal that killed it. TERMINATED and UNKNOWN are not its fault.
    """
    results = object_in(cell.directory / RESULTS)
    if results is not None:
        return Outcome(cell, results)
    diverged = object_in(cell.directory / DIVERGED) is not None
    return Outcome(cell, None, error_in(cell.log, status), diverged, lost=status < 0 or status in (TERMINATED, UNKNOWN))


def _end_with(driver: Connection) -> None:
    """End this process once the other end of the pipe is closed."""
    try:
        driver.recv_bytes()
    except (EOFError, OSError):
        os._exit(TERMINATED)


def tidy(directory: Path, keep: bool) -> None:
    """Remove the checkpoints of a finished cell, and all but its scores unless the rest is kept."""
    for path in directory.iterdir():
        checkpoint = path.is_dir() and path.name.startswith("checkpoint-")
        if checkpoint or not keep and path.name not in KEPT and not path.name.startswith("."):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def error_in(log: Path, status: int) -> str:
    """Return in one line why a cell failed: the last error since it was started, or how its process ended."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LONGEST_LOG))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    last = max((number for number, line in enumerate(lines) if line.startswith(STARTED)), default=0)
    wrong = [line for line in lines[last:] if line.startswith("error: ")]
    if wrong:
        return wrong[-1].removeprefix("error: ")
    return f"its process ended with status {status}, see {log}"
