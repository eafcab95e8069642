"""Run many experiments from one file, side by side: python run_sweep.py configs/sweeps/NAME.json [--key value ..]"""

import json
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from common.boundary import SWITCH, guarded
from common.errors import ConfigError, RunFailed
from common.files import check_writable
from common.json_settings import describe
from common.keys import REQUIRED, key_fields, key_types
from common.ownership import Ownership
from common.requirements import check_installed

if TYPE_CHECKING:
    from seq2seq.sweeps.cells import Table
    from seq2seq.sweeps.driver import Workers
    from seq2seq.sweeps.records import Records
    from seq2seq.sweeps.specification import Sweep

USAGE = "usage: python run_sweep.py FILE.json [--key value ..]    (--help lists the keys)"
INTERRUPTED = "interrupted; the same command goes on with the cells that are not finished"


def main(argv: list[str]) -> int:
    return guarded(program, argv, INTERRUPTED)


def program(argv: list[str]) -> None:
    """Do what the command line says. Raises what `guarded` turns into one line."""
    check_installed()
    from seq2seq.sweeps.specification import load_sweep

    if {"--help", "-h"} & set(argv):
        print_keys()
        return
    if not argv or argv[0].startswith("--"):
        raise ConfigError(USAGE)
    sweep = load_sweep(argv[0], argv[1:])
    from seq2seq.sweeps.cells import Table  # takes seconds to import, which the error for a wrong key should not
    from seq2seq.sweeps.progress import warn

    table = Table(sweep)
    warn(table.warnings)
    records = Path(sweep.records)
    check_writable(Path(sweep.output_dir))
    if not sweep.dry_run:
        check_writable(records.parent, key="records")
    with ExitStack() as owned:
        workers = workers_of(sweep)
        owned.callback(workers.stop)
        if sweep.dry_run:
            from seq2seq.sweeps.planned import print_plan
            from seq2seq.sweeps.records import Records

            print_plan(table, Records(records), sweep.cpus, workers.size)
            return
        owned.enter_context(Ownership(sweep.output_dir))
        if records.parent.absolute() != Path(sweep.output_dir).absolute():  # another sweep may write there, too
            owned.enter_context(Ownership(records.parent, key="records"))
        run(sweep, table, workers)


def run(sweep: "Sweep", table: "Table", workers: "Workers") -> None:
    """Run the cells, or some of them again, as the sweep says. Raises RunFailed if a cell has failed."""
    from seq2seq.sweeps.records import Records
    from seq2seq.sweeps.verifying import verify

    records = Records(Path(sweep.records))
    if sweep.verify is not None:
        print("\n".join(verify(table, records, workers, sweep.verify)))
        return
    end = None if sweep.hours is None else time.monotonic() + 3600 * sweep.hours
    if sweep.search:
        search_first(sweep, table, records, end)
    complete(table, records, workers, end)


def complete(table: "Table", records: "Records", workers: "Workers", end: float | None) -> None:
    """Run all cells that have no record, until a time, and say in the end what is missing."""
    from seq2seq.sweeps.driver import Driver
    from seq2seq.sweeps.expected import weights
    from seq2seq.sweeps.planned import cells_by_row
    from seq2seq.sweeps.progress import Progress, summary

    start = time.monotonic()
    cells = [cell for cells in cells_by_row(table, records).values() for cell in cells]
    with Progress(table, records, workers.size, weights(cells)) as progress:
        driver = Driver(table, records, workers, progress.show)
        state = driver.run(None if end is None else end - time.monotonic())
    *problems, counts = summary(state, table, time.monotonic() - start)
    for line in problems:
        print(line)
    print(f"{counts}; {records.path}")
    lost = len(state.failed) + len(state.diverged)
    if lost or state.unchosen:
        cells = f"{lost} cells have failed" if lost else "no cell to choose by has a score"
        raise RunFailed(f"{cells}; all others are kept")


def search_first(sweep: "Sweep", table: "Table", records: "Records", end: float | None) -> None:
    """Choose by Ray Tune, until a time. The workers are on Ray, and connected."""
    from seq2seq.sweeps.search import Search

    resources = {"CPU": sweep.cpus, "GPU": gpus_of(sweep)}
    found = Search(table, records, resources, lambda line: print(line, flush=True))
    found.run(None if end is None else end - time.monotonic())


def gpus_of(sweep: "Sweep") -> float:
    """Return the GPUs of a run."""
    import torch

    return float(torch.cuda.is_available()) if sweep.gpus is None else sweep.gpus


def workers_of(sweep: "Sweep") -> "Workers":
    """Return where the cells run."""
    gpus = gpus_of(sweep)
    if sweep.ray is not None or sweep.search:
        from seq2seq.sweeps.on_ray import RayWorkers

        return RayWorkers(sweep.ray or "local", sweep.workers, sweep.cpus, gpus, sweep.keep_models)
    from seq2seq.sweeps.local import LocalWorkers

    if gpus != int(gpus):
        raise ConfigError(f"gpus is {gpus}; without ray it must be a whole number, as a process owns its GPUs")
    return LocalWorkers(sweep.workers, sweep.cpus, int(gpus), sweep.keep_models)


def print_keys() -> None:
    """Print the keys of a sweep, of an item of `configurations` and of `choose`."""
    from seq2seq.sweeps.specification import Choice, Entry, Sweep

    print(USAGE)
    print(f"\non the command line only\n  {SWITCH}: show errors with their tracebacks")
    titles = {Sweep: "the file", Entry: "an object in configurations", Choice: "choose"}
    for cls, title in titles.items():
        print(f"\n{title}")
        types = key_types(cls)
        for f in key_fields(cls):
            default = "required" if f.default is REQUIRED else f"default {json.dumps(f.default)}"
            print(f"  {f.name}: {describe(types[f.name])}, {default}\n      {f.metadata['help']}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
