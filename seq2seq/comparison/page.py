"""The files of a report: numbers as CSV, the table as Markdown, and table and plots as one HTML page."""

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from seq2seq.comparison.configurations import Section, Statistic, rank
from seq2seq.comparison.page_style import SCRIPT, STYLE, legend_mark
from seq2seq.comparison.plots import Plot

NOTE = "Scores are mean ± sample standard deviation over seeds; the best of each column is bold."


DIVERGED = "Diverged runs"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    text: what it shows.
    key: the number to sort by; None for text.
    best: whether it is the best of its column.
    """

    text: str
    key: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """The table of a section, with a row per configuration and a column per score.

    head: column headings.
    rows: cells by row.
    majority: scores of the majority class, shown as the last row; empty if unknown.
    """

    head: list[str]
    rows: list[list[Cell]]
    majority: list[str]


def table_of(section: Section) -> Table:
    """Build the table of a section: scores as mean ± deviation, with the best of each column marked, and costs."""
    configurations, columns = section.configurations, section.columns
    names = [task if [t for t, _ in columns].count(task) == 1 else f"{task} {metric}" for task, metric in columns]
    if len(section.columns) == 1:
        names = [" ".join(columns[0])]
    scores = [[c.score(*column) for column in columns] for c in configurations]
    majority = [section.majority(*column) for column in columns]
    if len(section.tasks) > 1:
        names.append("average")
        scores = [[*row, c.average] for row, c in zip(scores, configurations, strict=True)]
        majority.append(math.nan)
    best = [max((s.mean for s in column if s.mean == s.mean), default=None) for column in zip(*scores, strict=True)]
    several = any(c.first.low_resource is not None for c in configurations)
    head = ["configuration", "method", *["training rows"][:several], *names]
    head += ["seeds", "trainable", "% of backbone", "seconds", "MiB"]
    rows = []
    for c, row in zip(configurations, scores, strict=True):
        counts = [number_cell(c.rows, ",.0f") if math.isfinite(c.rows) else Cell("all", math.inf)]
        rows.append(
            [Cell(c.family), Cell(c.first.method), *counts[:several]]
            + [Cell(mean_text(s), s.mean, s.mean == top) for s, top in zip(row, best, strict=True)]
            + [number_cell(len(c.runs), "d"), number_cell(c.first.trainable, ",d"), number_cell(c.percent, ".3f")]
            + [number_cell(c.mean_of("seconds"), ",.0f"), number_cell(c.mean_of("memory_mib"), ",.0f")]
        )
    known = ["" if math.isnan(score) else f"{score:.2f}" for score in majority]
    foot = ["majority class", *[""] * (1 + several), *known, *[""] * 5] if any(known) else []
    return Table(head, rows, foot)


def mean_text(score: Statistic) -> str:
    """The mean with two decimals, followed by ± the deviation if there are several values."""
    if not score.count:
        return ""
    return f"{score.mean:.2f}" + (f" ± {score.deviation:.2f}" if score.count > 1 else "")


def number_cell(value: float, form: str) -> Cell:
    return Cell("" if isinstance(value, float) and math.isnan(value) else format(value, form), value)


def summary(sections: list[Section], split: str) -> str:
    """One sentence on what was compared and which configuration is best."""
    configurations = [c for section in sections for c in section.configurations]
    counts = [count(sum(len(c.runs) for c in configurations), "run"), count(len(configurations), "configuration")]
    words = f"{counts[0]} of {counts[1]}, scored on {split}"
    if len(sections) > 1:
        return (
            f"{words}; {len(sections)} groups of tasks, each in a section of its own: their scores are not comparable."
        )
    best = min(configurations, key=lambda c: rank(c.average.mean))
    return (
        f"{words} of {', '.join(sections[0].tasks)}. {best.family} scores highest: {mean_text(best.average)} with "
        f"{best.first.trainable:,} trainable parameters, {best.percent:.3g}% of the backbone"
        f"{f', from {best.rows:,} training rows' if math.isfinite(best.rows) else ''}."
    )


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s'[: number != 1]}"


def markdown(sections: list[Section], split: str, diverged: Sequence[str] = ()) -> str:
    """The report as Markdown, with a table per section and a list of the runs that diverged."""
    parts = [f"# Runs compared on {safe(split)}", safe(summary(sections, split))]
    for section in sections:
        table = table_of(section)
        if len(sections) > 1:
            parts.append(f"## {safe(', '.join(section.tasks))}")
        rows = [table.head, [":--" if cell.key is None else "--:" for cell in table.rows[0]]]
        rows[0] = [safe(name) for name in table.head]
        rows += [[f"**{safe(cell.text)}**" if cell.best else safe(cell.text) for cell in row] for row in table.rows]
        rows += [table.majority] if table.majority else []
        parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    parts.append(NOTE)
    if diverged:
        parts.append(f"{DIVERGED}:\n\n" + "\n".join(f"- {safe(line)}" for line in diverged))
    return "\n\n".join(parts) + "\n"


def safe(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    return re.sub(r"([\\|*`~\[\]])", r"\\\1", html.escape(text, quote=False))


def page(sections: list[Section], split: str, plots: list[list[Plot]], diverged: Sequence[str] = ()) -> str:
    """The report as a self-contained HTML page."""
    title = html.escape(f"Runs compared on {split}")
    body = "\n".join(
        section_html(section, drawn, len(sections) > 1) for section, drawn in zip(sections, plots, strict=True)
    )
    items = "".join(f"<li>{html.escape(line)}</li>" for line in diverged)
    body += f'\n<section><p class="note">{DIVERGED}:</p><ul class="note">{items}</ul></section>' if diverged else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header><h1>{title}</h1>
<p class="summary">{html.escape(summary(sections, split)).replace(" ± ", "&nbsp;±&nbsp;")}</p></header>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def section_html(section: Section, plots: list[Plot], headed: bool) -> str:
    heading = f"<h2>{html.escape(', '.join(section.tasks))}</h2>" if headed else ""
    figures = "\n".join(figure_html(plot, section.labels) for plot in plots)
    return f"<section>{heading}\n{table_html(section)}\n{figures}\n</section>"


def table_html(section: Section) -> str:
    """The table in HTML, with numbers right-aligned and sorted by clicking a column heading."""
    table = table_of(section)
    numeric = [' class="n"' if cell.key is not None else "" for cell in table.rows[0]]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{html.escape(name)}</button></th>'
        for kind, name in zip(numeric, table.head, strict=True)
    )
    body = ""
    series = [i for i, family in enumerate(section.families) for _ in family]
    for i, row in zip(series, table.rows, strict=True):
        first = (
            f'<th scope="row"><span class="name">{legend_mark(i)}<span>{html.escape(row[0].text)}</span></span></th>'
        )
        body += f'<tr data-s="{i}">{first}{"".join(map(cell_html, row[1:]))}</tr>\n'
    cells = (f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(numeric, table.majority, strict=False))
    foot = f"<tfoot><tr>{''.join(cells)}</tr></tfoot>" if table.majority else ""
    note = f"{NOTE} Click a heading to sort; hover over a row to highlight it in the plots."
    return f"""<div class="table"><table><thead><tr>{head}</tr></thead>
<tbody>{body}</tbody>{foot}</table></div>
<p class="note">{note}</p>"""


def cell_html(cell: Cell) -> str:
    text = html.escape(cell.text)
    if cell.key is None:
        return f"<td>{text}</td>"
    return f'<td class="n" data-v="{cell.key!r}">{f"<b>{text}</b>" if cell.best else text}</td>'


def figure_html(plot: Plot, names: list[str]) -> str:
    """A plot in HTML, with its legend above and its caption below."""
    items = "".join(
        f'<li data-s="{i}">{legend_mark(i)}{f"<i>{i + 1}</i>" if len(names) > 1 else ""}<span>{html.escape(names[i])}'
        "</span></li>"
        for i in plot.shown
    )
    legend = f'<ul class="legend">{items}</ul>' if items else ""
    return f"""<figure>
<h3>{html.escape(plot.title)}</h3>
{legend}
<div class="plot">{plot.svg}</div>
<figcaption>{html.escape(plot.caption)}</figcaption>
</figure>"""
