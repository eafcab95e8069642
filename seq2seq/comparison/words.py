"""The report in words: its summary, and the whole as Markdown."""

import html
import math
import re
from collections.abc import Sequence

from seq2seq.comparison.sections import Section
from seq2seq.comparison.tables import Table, class_tables, mean_text, table_of

NOTE = "Scores are mean ± sample standard deviation over seeds; the best of each column is bold."
DIVERGED = "Diverged runs"


def summary(sections: list[Section], split: str) -> str:
    """One sentence on what was compared, and, if all of it is comparable, which configuration is best."""
    configurations = [c for section in sections for c in section.configurations]
    counts = [count(sum(len(c.runs) for c in configurations), "run"), count(len(configurations), "configuration")]
    words = f"{counts[0]} of {counts[1]}, scored on {split}"
    if len(sections) > 1:
        return (
            f"{words}; {len(sections)} sections, as scores on different rows or by different metrics are not "
            "comparable."
        )
    return f"{words} of {sections[0].title}. {best_of(sections[0])}"


def best_of(section: Section) -> str:
    """One sentence on which configuration of a section is best."""
    best = section.best
    verb = "scores highest:" if len(section.configurations) > 1 else "scores"
    rows = f", from {best.rows:,} training rows" if math.isfinite(best.rows) else ""
    return (
        f"{best.family} {verb} {mean_text(best.average)} with {best.first.trainable:,} trainable parameters, "
        f"{best.percent:.3g}% of the backbone{rows}."
    )


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s'[: number != 1]}"


def markdown(sections: list[Section], split: str, diverged: Sequence[str] = ()) -> str:
    """The report as Markdown, with the tables of each section and a list of the runs that diverged."""
    parts = [f"# Runs compared on {safe(split)}", safe(summary(sections, split))]
    for section in sections:
        if len(sections) > 1:
            parts += [f"## {safe(section.title)}", safe(best_of(section))]
        parts.append(markdown_table(table_of(section)))
        for table in class_tables(section):
            parts += [safe(table.caption), markdown_table(table)]
    parts.append(NOTE)
    if diverged:
        parts.append(f"{DIVERGED}:\n\n" + "\n".join(f"- {safe(line)}" for line in diverged))
    return "\n\n".join(parts) + "\n"


def markdown_table(table: Table) -> str:
    rows = [list(map(safe, table.head)), [":--" if cell.key is None else "--:" for cell in table.rows[0]]]
    rows += [[f"**{safe(cell.text)}**" if cell.best else safe(cell.text) for cell in row] for row in table.rows]
    rows += [table.foot] if table.foot else []
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def safe(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return re.sub(r"([\\|*`~\[\]])", r"\\\1", html.escape(text, quote=False))
