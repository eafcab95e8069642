"""Runs finished cells again, and compares."""

import random
import shutil
from dataclasses import replace
from pathlib import Path

from common.errors import ConfigError, RunFailed
from seq2seq.sweeps.cells import Cell, Table
from seq2seq.sweeps.driver import LOOK, Workers
from seq2seq.sweeps.planned import cells_by_row
from seq2seq.sweeps.records import Records, record_of

COMPARED = "scores", "average", "majority", "rows", "hash", "history", "trainable"


def verify(table: Table, records: Records, workers: Workers, count: int) -> list[str]:
    """Run `count` finished cells, drawn at random, again; return a line about each.

    Raises ConfigError if none is finished, RunFailed if a result is not the same or a worker was lost.
    """
    cells = [cell for cells in cells_by_row(table, records).values() for cell in cells]
    scored = [cell for cell in cells if "scores" in (records.named(cell) or ())]
    if not scored:
        raise ConfigError(f"verify is {count}, but no cell of the sweep is finished")
    directory = Path(table.sweep.output_dir, "verify")
    shutil.rmtree(directory, ignore_errors=True)
    waiting = [moved(cell, directory / cell.key) for cell in random.sample(scored, min(count, len(scored)))]
    lines, wrong, lost, running = [], 0, 0, 0
    try:
        while waiting or running:
            while waiting and workers.free > 0:
                workers.start(waiting.pop())
                running += 1
            for outcome in workers.wait(LOOK):
                running -= 1
                if outcome.lost:
                    lost += 1
                    lines.append(f"{outcome.cell.title}: its worker was lost, so nothing is known")
                    continue
                new = None if outcome.results is None else record_of(outcome.cell, outcome.results, workers.threads)
                difference = outcome.error if new is None else differing(records.by_key[outcome.cell.key], new)
                wrong += bool(difference)
                lines.append(f"{outcome.cell.title}: {difference or 'the same'}")
    finally:
        workers.stop()
        shutil.rmtree(directory, ignore_errors=True)
    if wrong:
        raise RunFailed(f"{wrong} of {len(lines)} cells gave other results: {'; '.join(lines)}")
    if lost:
        raise RunFailed(f"{lost} of {len(lines)} cells were not verified: {'; '.join(lines)}")
    return lines


def moved(cell: Cell, directory: Path) -> Cell:
    """Return the cell, to be run in another directory."""
    return replace(cell, directory=directory, values={**cell.values, "output_dir": str(directory)})


def differing(old: dict, new: dict) -> str:
    """Return in words in what two records of a cell differ; an empty text if in nothing."""
    names = [name for name in COMPARED if name in old and old[name] != new.get(name)]
    if not names:
        return ""
    parts = [f"{name} {old[name]}, now {new.get(name)}" for name in names[:2]]
    place = [f"{name}: {old[name]}, now {new[name]}" for name in ("machine", "threads") if old[name] != new[name]]
    return "; ".join([*parts, *place, *(["which may round differently"] if place else [])])
