"""What a sweep shows while it runs: a live table on a terminal, lines elsewhere."""

import math
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from statistics import mean

from rich.console import Console
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from seq2seq.sweeps.cells import CHOOSE, Cell, Table
from seq2seq.sweeps.choosing import LOSS, score_of
from seq2seq.sweeps.driver import State
from seq2seq.sweeps.records import Records

Place = tuple[str, str, str]  # row, task and stage
DAY = 24 * 3600
EVERY = 60.0  # seconds between two lines of a sweep whose output is no terminal


def place_of(cell: Cell) -> Place:
    return cell.row.name, cell.task, cell.stage


class Progress:
    """Shows the state of a sweep, to be used as a context manager."""

    def __init__(self, table: Table, records: Records, workers: int, work: Mapping[Place, float]):
        """Show nothing yet.

        workers: number of cells at once.
        work: how much a cell is, relative to others.
        """
        self.table, self.records, self.workers, self.work = table, records, workers, work
        self.counts = table.counts()
        self._console = Console()
        self._stack = ExitStack()
        self._live: Live | None = None
        self._said = -math.inf

    def __enter__(self) -> "Progress":
        if self._console.is_terminal:
            self._live = self._stack.enter_context(Live(console=self._console, auto_refresh=False))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)

    def show(self, state: State, news: str | None) -> None:
        """Show the state, and a line of news if there is one."""
        if self._live is not None:
            if news is not None:
                self._live.console.print(Text(news))
            self._live.update(self._drawn(state), refresh=True)
        elif news is not None or time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            print(f"[{self._counts(state)}]{'' if news is None else f' {news}'}", flush=True)

    def _counts(self, state: State) -> str:
        done, left = len(state.finished), cells_left(state)
        parts = [f"{done} of {done + left + len(state.failed)} cells"]
        if state.failed:
            parts.append(f"{len(state.failed)} failed")
        time_left = self._seconds_left(state)
        if left and time_left is not None:
            parts.append(f"{duration(time_left)} left")
        return ", ".join(parts)

    def _seconds_left(self, state: State) -> float | None:
        """Return the expected time to the end, from the cells of this sitting; None before there are any."""
        done = sum(self.work.get(place_of(cell), 1.0) for cell, _ in state.taken)
        if not done:
            return None
        ended = Counter(map(place_of, (*state.finished.values(), *(cell for cell, _ in state.failed.values()))))
        left = sum(max(0, count - ended[place]) * self.work.get(place, 1.0) for place, count in self.counts.items())
        return sum(seconds for _, seconds in state.taken) * left / done / max(1, self.workers)

    def _drawn(self, state: State) -> RichTable:
        """The live table: for each task what is done, running and best on validation so far."""
        table = RichTable(title=Text(self._counts(state)), title_justify="left")
        for column in ("task", "done", "running", "best on validation so far"):
            table.add_column(column)
        table.add_column("score", justify="right")
        metric = self.table.sweep.choice.metric if self.table.sweep.choice else "average_metrics"
        for task in self.table.tasks:
            done = [cell for cell in state.finished.values() if cell.task == task]
            running = [cell.title for cell, _ in state.running.values() if cell.task == task]
            reported = [cell for cell in done if cell.stage != CHOOSE] or done
            scores: dict[str, list[float]] = {}
            for cell in reported:
                score = score_of(self.records.by_key[cell.key], metric)
                if not math.isnan(score):
                    scores.setdefault(cell.row.name, []).append(score)
            top = max(scores, key=lambda row: mean(scores[row]), default=None)
            score = "" if top is None else f"{mean(scores[top]) * (-1 if metric == LOSS else 1):.2f}"
            table.add_row(Text(task), str(len(done)), Text("\n".join(running)), Text(top or ""), score)
        return table


def cells_left(state: State) -> int:
    """Return the number of cells that are not finished and have not failed."""
    return len(state.running) + state.waiting + state.later


def duration(seconds: float) -> str:
    """Return a time in words: "40 s", "12 min", "3.4 h", "12 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 3 * DAY else f"{seconds / DAY:.0f} days"


def summary(state: State, table: Table, seconds: float) -> list[str]:
    """Return what is to be said in the end: failed cells, those of one row and task together, and what is left."""
    lines = []
    failed: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for cell, error in [*state.failed.values(), *state.diverged]:
        failed.setdefault((cell.row.name, cell.task), []).append((cell.seed, error))
    for (row, task), cases in failed.items():
        seeds = sorted({seed for seed, _ in cases})
        every = "every seed" if len(seeds) == len(table.sweep.seeds) else f"seed {', '.join(map(str, seeds))}"
        lines.append(f"failed with {every}: {row}, {task}: {cases[0][1]}")
    lines += [f"not reported: {row}, {task}: no value of the space has a score" for row, task in state.unchosen]
    left = cells_left(state)
    done = f"{len(state.finished)} of {len(state.finished) + left + len(state.failed)} cells are finished"
    more = "; the same command goes on" if left else ""
    return [*lines, f"{done}, {len(state.taken)} of them in these {duration(seconds)}{more}"]


def warn(lines: list[str]) -> None:
    for line in lines:
        print(f"warning: {line}", file=sys.stderr)
