"""Runs the cells of a sweep: row by row those by which values are chosen and the first seed, then the other seeds."""

import heapq
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from common.termination import SECONDS
from seq2seq.layout import RESULTS
from seq2seq.sweeps.cells import CHOOSE, Cell, Table
from seq2seq.sweeps.choosing import best, said
from seq2seq.sweeps.records import Records, record_of_outcome
from seq2seq.sweeps.work import Outcome, outcome_of

FIRST = (-1,)  # place in the queue of a cell that was under way
LOOK = 1.0  # seconds between two looks at the workers
MOST_LOSSES = 2  # times that a cell is started again after its worker was lost


class Workers(Protocol):
    """Where cells run: at most `size` at once, each with so many threads."""

    size: int
    threads: int

    @property
    def free(self) -> int:
        """The number of cells that can be started now."""

    def start(self, cell: Cell) -> None: ...

    def wait(self, seconds: float) -> list[Outcome]: ...

    def end(self, cell: Cell, force: bool) -> None: ...

    def stop(self) -> None: ...


@dataclass
class State:
    """How far a sweep is.

    finished: cells with a record, by place.
    running: cells under way, by key, with the time at which they were started.
    failed: why cells have failed in this sitting, by place.
    diverged: reported cells that are finished without scores, and why.
    waiting: number of cells that are known and not started.
    later: number of reported cells whose values are not chosen yet.
    taken: cells that were finished in this sitting, with their seconds.
    unchosen: rows and tasks of which no cell to choose by has a score, so that nothing can be reported.
    """

    finished: dict[tuple, Cell] = field(default_factory=dict)
    running: dict[str, tuple[Cell, float]] = field(default_factory=dict)
    failed: dict[tuple, tuple[Cell, str]] = field(default_factory=dict)
    diverged: list[tuple[Cell, str]] = field(default_factory=list)
    waiting: int = 0
    later: int = 0
    taken: list[tuple[Cell, float]] = field(default_factory=list)
    unchosen: list[tuple[str, str]] = field(default_factory=list)


class Driver:
    """Runs a sweep to its end, or until it is stopped."""

    def __init__(self, table: Table, records: Records, workers: Workers, show: Callable[[State, str | None], None]):
        """Take a sweep.

        show: called with the state whenever it has changed or a second has passed, and with a line of news or None.
        """
        self.table, self.records, self.workers, self.show = table, records, workers, show
        self.state = State()
        self._ready: list[tuple[tuple, int, Cell]] = []
        self._queued = 0
        self._choosing: dict[tuple[str, str], list[Cell]] = {}
        self._losses: Counter[str] = Counter()
        self._late: dict[str, bool] = {}  # cells that have taken too long, and whether they were ended by force
        self._cells: dict[tuple[str, str], list[Cell]] = {}
        self._rows = [*table.rows]
        self._same: dict[str, list[Cell]] = {}  # cells that wait for another of the same key

    def run(self, seconds: float | None = None) -> State:
        """Run every cell that has no record, for at most this time. Returns the state in the end."""
        end = None if seconds is None else time.monotonic() + seconds
        begun = False
        try:
            self._begin()
            self.records.write(self.cells(), self.table.sweep.content)
            begun = True
            while (self._ready or self.state.running) and (end is None or time.monotonic() < end):
                while self._ready and self.workers.free > 0:
                    self._start(heapq.heappop(self._ready)[-1])
                self._tell()
                for outcome in self.workers.wait(LOOK):
                    self._end(outcome)
                self._end_late()
        finally:
            self.workers.stop()
            self._collect()
            if begun:
                self.records.write(self.cells(), self.table.sweep.content)
        ended = [(cell, self.records.by_key[cell.key]) for cell in self.state.finished.values() if cell.stage != CHOOSE]
        self.state.diverged = [(cell, record["failed"]) for cell, record in ended if "failed" in record]
        self._tell()
        return self.state

    def _collect(self) -> None:
        """Take note of cells that have ended while they were being stopped; the others are not started any more."""
        for cell, _ in self.state.running.values():
            for each in (cell, *self._same.pop(cell.key, ())):
                if self._recorded(each):
                    self.state.finished[each.place] = each
                else:
                    self._push(each, FIRST)
        self.state.running.clear()

    def _begin(self) -> None:
        """Find what is finished, and queue what can be started."""
        self.state.later = len(self.table.sweep.seeds) * len([*self.table.pairs()])
        for row, task in self.table.pairs():
            self._choosing[row.name, task] = self.table.choices(row, task)
            self._cells[row.name, task] = [*self._choosing[row.name, task]]
            for cell in self._choosing[row.name, task]:
                self._queue(cell)
        for row, task in self.table.pairs():
            self._report_if_chosen(row.name, task)

    def _queue(self, cell: Cell) -> None:
        """Queue a cell, unless it is finished: row by row for the first seed, so that there soon are whole rows."""
        if self._recorded(cell):
            self.state.finished[cell.place] = cell
        else:
            seed = 0 if cell.stage == CHOOSE else self.table.sweep.seeds.index(cell.seed)
            self._push(cell, (seed, self._rows.index(cell.row.name)))

    def _push(self, cell: Cell, place: tuple) -> None:
        self._queued += 1
        heapq.heappush(self._ready, (place, self._queued, cell))

    def _recorded(self, cell: Cell) -> bool:
        """Return True if a cell has a record, be it from results that an earlier driver did not live to see."""
        known = self.records.named(cell, stopped=self.table.sweep.search)
        return known is not None or self._record(outcome_of(cell, 0))

    def _record(self, outcome: Outcome) -> bool:
        """Record how a cell ended, if it would end so again. The key is part of its directory's name."""
        record = record_of_outcome(outcome, self.workers.threads)
        if record is not None:
            self.records.add(record)
        return record is not None

    def _start(self, cell: Cell) -> None:
        """Start a cell, unless the same is under way or has ended for another row."""
        if cell.key in self.state.running:
            self._same.setdefault(cell.key, []).append(cell)
        elif self._recorded(cell):
            self._note(cell)
        else:
            (cell.directory / RESULTS).unlink(missing_ok=True)  # damaged, or there would be a record
            self.workers.start(cell)
            self.state.running[cell.key] = cell, time.monotonic()

    def _end_late(self) -> None:
        """End cells that have taken too long, and by force those that then write no checkpoint in time."""
        limit = self.table.sweep.cell_hours
        if limit is None:
            return
        for cell, started in self.state.running.values():
            late = time.monotonic() - started - 3600 * limit
            force = late > SECONDS + LOOK
            if late > 0 and self._late.get(cell.key) is not force:
                self._late[cell.key] = force
                self.workers.end(cell, force)

    def _end(self, outcome: Outcome) -> None:
        """Take note of a cell that has ended, and queue what it allows."""
        cell = outcome.cell
        if self._late.pop(cell.key, None) is not None and outcome.results is None:
            outcome = Outcome(cell, error=f"took longer than cell_hours, {self.table.sweep.cell_hours:g}")
        _, started = self.state.running.pop(cell.key)
        same = [cell, *self._same.pop(cell.key, ())]
        if self._record(outcome):
            self.state.taken.append((cell, time.monotonic() - started))
            for each in same:
                self._note(each)
        elif outcome.lost and self._losses[cell.key] < MOST_LOSSES:
            self._losses[cell.key] += 1
            for each in same:
                self._push(each, FIRST)
            self._tell(f"{cell.title}: its worker was lost ({outcome.error}), and it is started again")
        else:
            for each in same:
                self.state.failed[each.place] = each, outcome.error
                self._tell(f"{each.title}: failed: {outcome.error}")
                self._report_if_chosen(each.row.name, each.task)

    def _note(self, cell: Cell) -> None:
        """Take note of a cell that has a record."""
        self.state.finished[cell.place] = cell
        self._tell(f"{cell.title}: {said(self.records.by_key[cell.key])}")
        self._report_if_chosen(cell.row.name, cell.task)

    def _report_if_chosen(self, row: str, task: str) -> None:
        """Queue the reported cells of a row and a task once all cells to choose by have ended."""
        cells = self._choosing.get((row, task))
        if cells is None or any(c.place not in self.state.finished and c.place not in self.state.failed for c in cells):
            return
        del self._choosing[row, task]
        self.state.later -= len(self.table.sweep.seeds)
        records = [self.records.named(cell, stopped=True) for cell in cells if cell.place in self.state.finished]
        chosen = best(records, self.table.sweep.choice.metric) if cells else {}
        if chosen is None:
            self.state.unchosen.append((row, task))
            return
        for cell in self.table.reports(self.table.rows[row], task, chosen):
            self._cells[row, task].append(cell)
            self._queue(cell)

    def cells(self) -> Iterator[Cell]:
        """Yield all cells that are known, row by row and task by task."""
        for cells in self._cells.values():
            yield from cells

    def _tell(self, news: str | None = None) -> None:
        self.state.waiting = len(self._ready)
        self.show(self.state, news)
