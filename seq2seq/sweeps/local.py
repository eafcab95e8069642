"""Runs cells side by side on this machine: one process each, forked from one that has everything imported."""

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

import torch

from common.errors import ConfigError
from common.termination import SECONDS
from seq2seq.sweeps.cells import REPORT, Cell
from seq2seq.sweeps.work import ROOT, UNKNOWN, Outcome, child, outcome_of

VISIBLE = "CUDA_VISIBLE_DEVICES"


class LocalWorkers:
    """At most `size` processes, each of which runs one cell."""

    def __init__(self, size: int | None, threads: int, gpus: int, keep: bool):
        """Start nothing yet.

        size: number of cells at once; None: as many as CPUs or GPUs suffice for.
        threads: of each cell.
        gpus: of each cell.
        keep: whether models are kept.
        Raises ConfigError if the machine has too few CPUs or GPUs.
        """
        self.threads, self.gpus, self.keep = threads, gpus, keep
        self._devices = list(map(str, range(torch.cuda.device_count()))) if gpus else []
        self.size = _size(size, threads, gpus, len(self._devices))
        self._running: dict[int, tuple[BaseProcess, Cell, list[str]]] = {}
        os.environ |= {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        # A process that was forked from another is not given to GPUs; and beside such cells importing takes no time.
        kind = "spawn" if torch.cuda.is_available() else "forkserver"
        self._context = multiprocessing.get_context(kind)
        if kind == "forkserver":
            self._context.set_forkserver_preload(["seq2seq.sweeps.work"])
        self._driver, self._alive = self._context.Pipe(duplex=False)  # breaks when this process ends

    @property
    def free(self) -> int:
        return self.size - len(self._running)

    def start(self, cell: Cell) -> None:
        """Start a cell."""
        devices, self._devices = self._devices[: self.gpus], self._devices[self.gpus :]
        if torch.cuda.is_available():
            os.environ[VISIBLE] = ",".join(devices)
        keep = self.keep and cell.stage == REPORT
        process = self._context.Process(target=child, args=(cell, self.threads, keep, self._driver), daemon=True)
        process.start()
        self._running[process.sentinel] = process, cell, devices

    def wait(self, seconds: float) -> list[Outcome]:
        """Return the cells that have ended, after at most this time."""
        return [self._ended(sentinel) for sentinel in wait(list(self._running), timeout=seconds)]

    def end(self, cell: Cell, force: bool) -> None:
        """End a cell, after a checkpoint unless by force; `wait` returns it then."""
        for process, running, _ in self._running.values():
            if running is cell:
                process.kill() if force else process.terminate()

    def stop(self) -> None:
        """End all cells, after the checkpoints that they can go on from."""
        for process, _, _ in self._running.values():
            process.terminate()
        end = time.monotonic() + SECONDS + 5
        for process, _, _ in self._running.values():
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        self._running.clear()

    def _ended(self, sentinel: int) -> Outcome:
        process, cell, devices = self._running.pop(sentinel)
        process.join()
        self._devices += devices
        status = process.exitcode or 0
        if status == UNKNOWN:  # it may be alive
            with suppress(OSError):
                os.kill(process.pid, signal.SIGKILL)
        process.close()
        return outcome_of(cell, status)


def _size(size: int | None, threads: int, gpus: int, there: int) -> int:
    """Return the number of cells at once. Raises ConfigError if the machine has too few CPUs or GPUs for one."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads > cpus:
        raise ConfigError(f"cpus is {threads}, but this machine has {cpus}; set cpus to at most that")
    if gpus > there:
        raise ConfigError(f"gpus is {gpus}, but this machine has {there}; set gpus to at most that")
    if gpus and size is not None and size * gpus > there:
        raise ConfigError(f"workers is {size} with {gpus} GPUs each, but this machine has {there}; set workers lower")
    return size or (there // gpus if gpus else max(1, cpus // threads))
