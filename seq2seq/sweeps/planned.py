"""What a sweep would run, without running it."""

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from seq2seq.comparison.words import count
from seq2seq.sweeps.cells import CHOOSE, Cell, Table
from seq2seq.sweeps.choosing import best
from seq2seq.sweeps.expected import Expectation, trainable
from seq2seq.sweeps.progress import duration
from seq2seq.sweeps.records import Records


def print_plan(table: Table, records: Records, threads: int, workers: int) -> None:
    """Print rows, parameters, numbers of cells and the expected time."""
    expectation = Expectation(records, threads)
    groups = cells_by_row(table, records)
    expectation.learn([cell for cells in groups.values() for cell in cells])
    title = f"{count(len(groups), 'row')}, {count(len(table.tasks), 'task')}"
    shown = RichTable(title=title, title_justify="left")
    for column in ("row", "method"):
        shown.add_column(column)
    for column in ("trainable", "to choose by", "reported", "finished", "time left"):
        shown.add_column(column, justify="right")
    total, unknown, done, every = 0.0, 0, 0, 0
    for name, cells in groups.items():
        left = [cell for cell in cells if records.named(cell) is None]
        seconds = [expectation.seconds(cell) for cell in left]
        known = [value for value in seconds if value is not None]
        total, unknown = total + sum(known), unknown + len(seconds) - len(known)
        done, every = done + len(cells) - len(left), every + len(cells)
        parameters, choose = trainable(cells[0]), sum(cell.stage == CHOOSE for cell in cells)
        shown.add_row(
            Text(name),  # no markup
            cells[0].method,
            "" if parameters is None else f"{parameters:,}",
            str(choose),
            str(len(cells) - choose),
            str(len(cells) - len(left)),
            duration(sum(known)) if len(known) == len(seconds) else "unknown",
        )
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(shown)
    print(f"{done} of {every} cells are finished")
    more = f", without {unknown} cells whose data cannot be read here" if unknown else ""
    if every > done:
        at_once = min(workers, every - done)
        print(f"expected: {duration(total / at_once)} with {at_once} at once{more}, from {expectation.source}")


def cells_by_row(table: Table, records: Records) -> dict[str, list[Cell]]:
    """Return all cells of each row; those that are reported have the first values where none are chosen yet."""
    groups: dict[str, list[Cell]] = {}
    for row, task in table.pairs():
        choices = table.choices(row, task)
        found = [records.named(cell, stopped=True) for cell in choices]
        chosen = best(found, table.sweep.choice.metric) if choices and None not in found else None
        first = chosen or (choices[0].chosen if choices else {})
        groups.setdefault(row.name, []).extend([*choices, *table.reports(row, task, first)])
    return groups
