"""Runs cells on Ray: on this machine, or on the machines of a cluster."""

import os
import signal
import socket
from typing import Any

from common.errors import ConfigError, one_line, type_and_line
from common.termination import SECONDS
from seq2seq.sweeps.cells import REPORT, Cell
from seq2seq.sweeps.work import ROOT, Outcome, logged, outcome_of, run_cell

PATIENCE = 5.0  # seconds to wait for an address to answer


class RayWorkers:
    """Tasks of Ray, each of which runs one cell in a worker process that is used again."""

    def __init__(self, address: str, size: int | None, threads: int, gpus: float, keep: bool):
        """Connect.

        address: "local" for this machine, "auto" for a cluster that runs here, or host:port.
        size: number of cells at once; None: as many as the cluster has CPUs or GPUs for.
        threads, gpus: of each cell, as Ray reserves them.
        keep: whether models are kept.
        Raises ConfigError if Ray is not installed, if the address does not answer, or if no machine of the cluster has
        enough CPUs or GPUs for a cell.
        """
        self.threads, self.keep = threads, keep
        self._ray = connect(address, threads * size if address == "local" and size is not None else None)
        self.size = self._size(size, threads, gpus)
        resources = {"num_cpus": threads, "num_gpus": gpus, "max_retries": 0}
        self._task = self._ray.remote(**resources)(remote_cell)
        self._running: dict[Any, Cell] = {}

    @property
    def free(self) -> int:
        return self.size - len(self._running)

    def start(self, cell: Cell) -> None:
        """Start a cell as soon as the cluster has room for it."""
        keep = self.keep and cell.stage == REPORT
        self._running[self._task.remote(cell, self.threads, keep, os.getcwd())] = cell

    def wait(self, seconds: float) -> list[Outcome]:
        """Return the cells that have ended, after at most this time."""
        if not self._running:
            return []
        ready, _ = self._ray.wait([*self._running], num_returns=1, timeout=seconds)
        return [self._outcome(task, self._running.pop(task)) for task in ready]

    def end(self, cell: Cell, force: bool) -> None:
        """End a cell, after a checkpoint unless by force; `wait` returns it then."""
        for task, running in self._running.items():
            if running is cell:
                self._ray.cancel(task, force=force)

    def stop(self) -> None:
        """End all cells, and leave the cluster."""
        tasks = [*self._running]
        for force, seconds in ((False, SECONDS), (True, 1)):
            for task in tasks:
                self._ray.cancel(task, force=force)
            tasks = self._ray.wait(tasks, num_returns=len(tasks), timeout=seconds)[1] if tasks else []
        self._running.clear()
        self._ray.shutdown()

    def _outcome(self, task: Any, cell: Cell) -> Outcome:
        errors = self._ray.exceptions
        lost = errors.WorkerCrashedError, errors.NodeDiedError, errors.ObjectLostError, errors.OutOfMemoryError
        try:
            return self._ray.get(task)
        except lost as error:
            return Outcome(cell, error=type_and_line(error), lost=True)
        except errors.RayError as error:
            return Outcome(cell, error=type_and_line(error))

    def _size(self, size: int | None, threads: int, gpus: float) -> int:
        """Return the number of cells at once."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        for name, needed, kind in (("cpus", threads, "CPU"), ("gpus", gpus, "GPU")):
            most = max((machine.get(kind, 0) for machine in machines), default=0)
            if needed > most:
                self._ray.shutdown()
                raise ConfigError(
                    f"{name} is {needed:g}, but no machine of the cluster has more than {most:g}; set {name} to at "
                    "most that"
                )
        room = sum(
            int(min(machine.get("CPU", 0) // threads, machine.get("GPU", 0) / gpus if gpus else 1e9))
            for machine in machines
        )
        return min(size or room, room)


def connect(address: str, cpus: int | None) -> Any:
    """Return Ray, connected to a cluster. Raises ConfigError."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what Ray will do anyway, and warns of
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ConfigError('Ray is not installed; in the clone, run pip install -e ".[ray]"') from None
    where = {"num_cpus": cpus} if address == "local" else {"address": address}
    if address not in ("local", "auto"):
        check_answers(address)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        ray.init(
            **where,
            include_dashboard=False if address == "local" else None,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"env_vars": {"PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false"}},
        )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise ConfigError(f"ray is {address!r}, which cannot be connected to: {one_line(error)}") from None
    return ray


def check_answers(address: str) -> None:
    """Raise ConfigError unless something answers at host:port, which Ray would wait for much longer."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise ConfigError(f'ray is {address!r}; it must be "local", "auto" or an address such as 10.0.0.1:6379')
    try:
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()
    except OSError as error:
        raise ConfigError(
            f"ray is {address!r}, which does not answer ({error.strerror or one_line(error)}); start it there with "
            f"ray start --head --port {port}"
        ) from None


def remote_cell(cell: Cell, threads: int, keep: bool, place: str) -> Outcome:
    """Run a cell in a worker of Ray, and send its results back, as its directory may be on another machine.

    place: the driver's working directory, to which paths are relative.
    """
    go_to(place)
    signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))  # Ray cancels by the first
    with logged(cell):
        status = run_cell(cell, threads, keep)
    return outcome_of(cell, status)


def go_to(place: str) -> None:
    """Make the driver's working directory that of this process, if this machine has it."""
    if os.path.isdir(place):
        os.chdir(place)
