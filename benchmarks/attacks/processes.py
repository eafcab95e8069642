"""The program in processes that may die: forked from one that has imported everything, as an interpreter takes seconds.

The process that forks must not have computed with torch, whose threads do not survive it.
"""

import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from attacks.outcome import REFUSED, TRACEBACK, Outcome

ROOT = Path(__file__).parents[2]
PATIENCE = 120  # seconds after which a process hangs; those here need less than ten
OWN_FAULT = "fault of the program"  # how the program names its own faults


@dataclass
class Ended:
    """How a process ended.

    status: its exit status, or minus the signal; None if it was killed because it took too long.
    errors: the lines of its standard error.
    """

    status: int | None
    errors: list[str]

    def failure(self) -> Outcome | None:
        """Return the outcome of a process that did not succeed; None if it did."""
        if self.status is None:
            return Outcome(TRACEBACK, f"no end within {PATIENCE} s")
        last = self.errors[-1] if self.errors else ""
        if any("Traceback (most recent call last)" in line or OWN_FAULT in line for line in self.errors):
            return Outcome(TRACEBACK, last)
        if self.status == 0:
            return None
        if self.status < 0:
            return Outcome(TRACEBACK, f"died of signal {-self.status}; {last}")
        said = [line for line in self.errors if line.strip() and not line.startswith("warning: ")]
        if len(said) == 1 and said[0].startswith("error: "):
            return Outcome(REFUSED, said[0])
        return Outcome(TRACEBACK, f"status {self.status} and {len(said)} lines: {' | '.join(said)[:300]}")


class Process:
    """A process that runs `target(*arguments)` and ends with the status that it returns.

    log: what it prints is in this file, with the suffixes .out and .err.
    """

    def __init__(self, target: Callable[..., int], *arguments, log: Path):
        self.log, self.started = log, time.monotonic()
        self.status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.id = os.fork()
        if self.id == 0:
            self._run(target, arguments)

    def _run(self, target, arguments):
        """Be the new process."""
        status = 1
        try:
            gc.freeze()
            os.setsid()
            for stream, suffix in ((1, ".out"), (2, ".err")):
                file = os.open(self.log.with_suffix(suffix), os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o666)
                os.dup2(file, stream)
            os.chdir(ROOT)
            status = target(*arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.id, number)

    def poll(self) -> int | None:
        """Return the exit status, or minus the signal; None while the process runs."""
        if self.status is None:
            ended, status = os.waitpid(self.id, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if ended else None
        return self.status

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Wait for the end; after `seconds`, kill the process."""
        while self.poll() is None:
            if time.monotonic() - self.started > seconds:
                os.killpg(self.id, signal.SIGKILL)
                os.waitpid(self.id, 0)
                return Ended(None, self._errors())
            time.sleep(0.005)
        return Ended(self.status, self._errors())

    def _errors(self) -> list[str]:
        path = self.log.with_suffix(".err")
        return path.read_text(errors="replace").splitlines() if path.exists() else []


def program(arguments: list[str]) -> int:
    """Run run_seq2seq.py."""
    import run_seq2seq

    return run_seq2seq.main(arguments)


def run(target: Callable[..., int], *arguments, log: Path) -> Ended:
    """Run `target(*arguments)` in a process of its own until it ends."""
    return Process(target, *arguments, log=log).wait()
