"""The results of a sweep as Markdown."""

import re
from collections.abc import Sequence

from seq2seq.comparison.names import word
from seq2seq.comparison.tables import Cell, Table
from seq2seq.comparison.words import count, safe
from seq2seq.results.conclusions import conclusions, limits
from seq2seq.results.measured import Measured
from seq2seq.results.tables import score_table, tables


def markdown(measured: Measured, command: str, records: str, picture: str | None) -> str:
    """The whole page.

    command: that made it. records: where the raw numbers are, relative to the page. picture: of the frontier.
    """
    parts = [f"# Results of the sweep {safe(measured.name)}", made_of(measured, command, records)]
    if picture:
        parts.append(f"![Score against trainable parameters]({picture})")
    parts += ["## What it says", bullets(conclusions(measured))]
    parts += ["## What it cannot say", bullets(limits(measured))]
    for title, table in {"Scores": score_table(measured), **tables(measured)}.items():
        parts += filter(None, (f"## {safe(title)}", safe(table.caption), text_table(table)))
    return "\n\n".join(parts) + "\n"


def made_of(measured: Measured, command: str, records: str) -> str:
    """How the page was made, and from what."""
    cells = sum(len(row.records) for row in measured.rows)
    tasks = ", ".join(f"{task}: {rows:,} rows" for task, rows in measured.tested.items())
    keys = ", ".join(word(name, value) for name, value in (measured.sweep.get("keys") or {}).items())
    machines = "; ".join(measured.machines)
    return (
        f"Made by `{command}` from [{safe(records)}]({link(records)}), which has every cell in a line: "
        f"{count(len(measured.rows), 'row')}, {count(len(measured.tasks), 'task')}, "
        f"{'seed' if len(measured.seeds) == 1 else 'seeds'} {', '.join(map(str, measured.seeds))}, "
        f"{count(cells, 'reported run')}, scored on {measured.split} ({safe(tasks)}). Machine: {machines}."
        + f" Keys of all runs: {safe(keys)}."
        * bool(keys)
    )


def link(path: str) -> str:
    """A path as the target of a link."""
    return f"<{path}>" if re.search(r"[\s()]", path) else path


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {safe(line)}" for line in lines)


def text_table(table: Table) -> str:
    """A table; the first column is text and the others are numbers, the best of them bold."""
    lines = [
        list(map(safe, table.head)),
        [":--", *["--:"] * (len(table.head) - 1)],
        *([text_cell(cell) for cell in row] for row in table.rows),
        *([list(map(safe, table.foot))] if table.foot else []),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def text_cell(cell: Cell) -> str:
    return f"**{safe(cell.text)}**" if cell.best else safe(cell.text)
