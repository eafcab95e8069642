"""A report as one HTML page: a section with tables and plots for all runs that were tested on the same rows."""

import html
from collections.abc import Sequence

from seq2seq.comparison.page_style import SCRIPT, STYLE, legend_mark
from seq2seq.comparison.plots import Plot
from seq2seq.comparison.sections import Section
from seq2seq.comparison.tables import Cell, Table, class_tables, table_of
from seq2seq.comparison.words import DIVERGED, NOTE, best_of, summary


def page(sections: list[Section], split: str, plots: list[list[Plot]], diverged: Sequence[str] = ()) -> str:
    """The report as a self-contained HTML page."""
    title = html.escape(f"Runs compared on {split}")
    body = "\n".join(
        section_html(section, drawn, len(sections) > 1) for section, drawn in zip(sections, plots, strict=True)
    )
    items = "".join(f"<li>{html.escape(line)}</li>" for line in diverged)
    body += f'\n<section><p class="note">{DIVERGED}:</p><ul class="note">{items}</ul></section>' if diverged else ""
    return document(title, f"<header><h1>{title}</h1>\n{sentence_html(summary(sections, split))}</header>\n{body}")


def document(title: str, body: str) -> str:
    """A self-contained HTML page in the style of reports. title, body: HTML."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
<script>{SCRIPT}</script>
</body>
</html>
"""


def sentence_html(text: str) -> str:
    return f'<p class="summary">{html.escape(text).replace(" ± ", "&nbsp;±&nbsp;")}</p>'


def section_html(section: Section, plots: list[Plot], headed: bool) -> str:
    heading = f"<h2>{html.escape(section.title)}</h2>\n{sentence_html(best_of(section))}" if headed else ""
    figures = "\n".join(figure_html(plot, section.labels) for plot in plots)
    classes = "\n".join(
        f"<details><summary>{html.escape(table.caption)}</summary>{table_html(table)}</details>"
        for table in class_tables(section)
    )
    note = f"{NOTE} Click a heading to sort; hover over a row to highlight it in the plots."
    return f"""<section>{heading}
{configurations_html(section)}
<p class="note">{note}</p>
{classes}
<div class="figures">
{figures}
</div>
</section>"""


def configurations_html(section: Section) -> str:
    """The table of configurations, each with its mark in the plots."""
    series = [i for i, family in enumerate(section.families) for _ in family]
    names = [
        f'<th scope="row" title="{html.escape(c.settings)}"><span class="name">{legend_mark(i)}'
        f"<span>{html.escape(c.family)}</span></span></th>"
        for i, c in zip(series, section.configurations, strict=True)
    ]
    return table_html(table_of(section), names, [f' data-s="{i}"' for i in series])


def table_html(table: Table, names: Sequence[str] = (), marks: Sequence[str] = ()) -> str:
    """A table in HTML, with numbers right-aligned and sorted by clicking a column heading.

    names: the first cell of each row, if it shows more than its text.
    marks: attributes of each row, if it has any.
    """
    numeric = [' class="n"' if cell.key is not None else "" for cell in table.rows[0]]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{html.escape(name)}</button></th>'
        for kind, name in zip(numeric, table.head, strict=True)
    )
    names = names or [f'<th scope="row">{html.escape(row[0].text)}</th>' for row in table.rows]
    body = "\n".join(
        f"<tr{mark}>{name}{''.join(map(cell_html, row[1:]))}</tr>"
        for row, name, mark in zip(table.rows, names, marks or [""] * len(table.rows), strict=True)
    )
    cells = (f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(numeric, table.foot, strict=False))
    foot = f"<tfoot><tr>{''.join(cells)}</tr></tfoot>" if table.foot else ""
    return f"""<div class="table"><table><thead><tr>{head}</tr></thead>
<tbody>{body}</tbody>{foot}</table></div>"""


def cell_html(cell: Cell) -> str:
    text = html.escape(cell.text)
    if cell.key is None:
        return f"<td>{text}</td>"
    return f'<td class="n" data-v="{cell.key!r}">{f"<b>{text}</b>" if cell.best else text}</td>'


def figure_html(plot: Plot, names: list[str]) -> str:
    """A plot in HTML, with its legend and its caption."""
    items = "".join(
        f'<li data-s="{i}">{legend_mark(i)}{f"<i>{i + 1}</i>" if len(names) > 1 else ""}<span>{html.escape(names[i])}'
        "</span></li>"
        for i in plot.shown
    )
    legend = f'<ul class="legend">{items}</ul>' if items else ""
    return f"""<figure>
<h3>{html.escape(plot.title)}</h3>
<div class="plot">{plot.drawing}</div>
{legend}
<figcaption>{html.escape(plot.caption)}</figcaption>
</figure>"""
