"""SIGTERM, which clusters send before they kill: the program ends with one line, if possible after a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from common.errors import Terminated

SECONDS = 20  # the time to write a checkpoint; clusters kill after 30 or more
LINE = "terminated; the same command goes on from the last checkpoint, if there is one"


class Termination:
    """What SIGTERM does in this process.

    requested: True once the signal has arrived inside `awaited`.
    """

    def __init__(self) -> None:
        self.requested = False
        self._handled = self._awaited = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Raise `Terminated` in the block when SIGTERM arrives; outside the main thread, leave the signal alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self.requested = False
        before = signal.signal(signal.SIGTERM, self._arrived)
        self._handled = True
        try:
            yield
        finally:
            self._handled = False
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Let the block end by itself after a SIGTERM, as it sees `requested`; after SECONDS, end it all the same.

        Inside `handled` only; elsewhere the block is run as it is.
        """
        if not self._handled:
            yield
            return
        before = signal.signal(signal.SIGALRM, self._late)
        self._awaited = True
        try:
            yield
        finally:
            self._awaited = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        if self.requested:
            raise Terminated(LINE)

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if not self._awaited or self.requested:
            raise Terminated(LINE)
        self.requested = True
        signal.setitimer(signal.ITIMER_REAL, SECONDS)

    def _late(self, number: int, frame: FrameType | None) -> None:
        raise Terminated(LINE)


termination = Termination()  # signals belong to the whole process
