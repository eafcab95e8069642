"""The results of a sweep as one HTML page, and the picture of its frontier."""

import html
import io

from seq2seq.comparison.page import document, figure_html, table_html
from seq2seq.comparison.page_style import legend_mark
from seq2seq.comparison.plots.drawing import SURFACE, Style, drawn, shortened
from seq2seq.results.comparisons import measurable
from seq2seq.results.conclusions import conclusions, limits
from seq2seq.results.measured import Measured
from seq2seq.results.plots import LONGEST, frontier_figure, plots
from seq2seq.results.tables import SCORES, ranked, score_table, tables

DOTS_PER_INCH = 110
LEGEND = 12  # groups that the legend of the picture has room for


def page(measured: Measured) -> str:
    """The whole page."""
    title = html.escape(f"Results of the sweep {measured.name}")
    figures = "\n".join(figure_html(plot, measured.groups) for plot in drawn(plots, measured))
    others = "\n".join(
        f"<details open><summary>{html.escape(title)}</summary>"
        f'{table_html(table)}<p class="note">{html.escape(table.caption)}</p></details>'
        for title, table in tables(measured).items()
    )
    rows = ranked(measured)
    marks = [measured.groups.index(row.group) for row in rows]
    names = [
        f'<th scope="row" title="{html.escape(row.group)}"><span class="name">{legend_mark(i)}'
        f"<span>{html.escape(row.name)}</span></span></th>"
        for i, row in zip(marks, rows, strict=True)
    ]
    scores = table_html(score_table(measured), names, [f' data-s="{i}"' for i in marks])
    body = f"""<header><h1>{title}</h1></header>
<section>
{listed("What it says", conclusions(measured))}
<div class="figures">
{figures}
</div>
<h2>Scores</h2>
{scores}
<p class="note">{html.escape(SCORES)} Click a heading to sort; hover over a row to highlight its group in the plots.</p>
{others}
{listed("What it cannot say", limits(measured))}
</section>"""
    return document(title, body)


def listed(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2>\n<ul>{items}</ul>"


def picture(measured: Measured) -> bytes | None:
    """The frontier as a PNG with a light ground, for pages that show no SVG; None if there is no frontier."""

    def draw() -> bytes | None:
        figure, buffer = frontier_figure(measured, DOTS_PER_INCH), io.BytesIO()
        if figure is None:
            return None
        axes = figure.axes[0]
        drawn_groups = [group for group in measured.groups if measurable(measured.of(group))]
        shown, more = drawn_groups[:LEGEND], len(drawn_groups[LEGEND:])
        marks = [axes.plot([], [], **legend_of(measured.groups.index(group)))[0] for group in shown]
        names = [shortened(group, LONGEST) for group in shown]
        if more:
            marks, names = [*marks, axes.plot([], [], linestyle="")[0]], [*names, f"and {more} more groups"]
        axes.legend(marks, names, frameon=False, fontsize=8, loc="lower right")
        figure.savefig(buffer, dpi=DOTS_PER_INCH, facecolor=SURFACE[0], metadata={"Software": None})
        return buffer.getvalue()

    return drawn(draw)


def legend_of(place: int) -> dict:
    """How the points of a group look."""
    style = Style(place)
    return {"color": style.colour, "linestyle": "", **style.points()}
