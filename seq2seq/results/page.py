"""The results of a sweep as one HTML page, and the picture of its frontier."""

import html
import io
import math

from seq2seq.comparison.page import document, figure_html, table_html
from seq2seq.comparison.page_style import legend_mark
from seq2seq.comparison.plots.drawing import SURFACE, Style, drawn
from seq2seq.comparison.tables import Cell, Table, number_cell
from seq2seq.results.comparisons import at_equal_size, behind, frontier
from seq2seq.results.conclusions import conclusions, interval, limits, shown_p
from seq2seq.results.measured import Measured
from seq2seq.results.plots import frontier_figure, plots
from seq2seq.results.statistics import Estimate
from seq2seq.results.words import COMPARED, NOTE, number

DOTS_PER_INCH = 110


def page(measured: Measured) -> str:
    """The whole page."""
    title = html.escape(f"Results of the sweep {measured.name}")
    first, *rest = [figure_html(plot, measured.groups) for plot in drawn(plots, measured)]
    others = "\n".join(rest)
    comparisons = "\n".join(
        f"<details open><summary>{html.escape(group)} and {html.escape(other)} at equal parameters</summary>"
        f'{table_html(comparison_table(measured, group, other))}<p class="note">{COMPARED}</p></details>'
        for group, others in (measured.sweep.get("compare") or {}).items()
        for other in others
        if at_equal_size(measured, group, other)[0]
    )
    rows = sorted(measured.rows, key=lambda row: -row.average.mean)
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
{first}
<h2>Scores</h2>
{scores}
<p class="note">{html.escape(NOTE)} Click a heading to sort; hover over a row to highlight its group in the plots.</p>
{comparisons}
<div class="figures">
{others}
</div>
{listed("What it cannot say", limits(measured))}
</section>"""
    return document(title, body)


def listed(title: str, lines: list[str]) -> str:
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h2>{title}</h2>\n<ul>{items}</ul>"


def score_table(measured: Measured) -> Table:
    """Scores and costs of every row, the best of each column marked."""
    front, worse = {row.name for row in frontier(measured.rows)}, behind(measured.rows)
    several = len(measured.tasks) > 1
    rows = sorted(measured.rows, key=lambda row: -row.average.mean)
    scores = [[*([row.average] if several else []), *(row.on(task) for task in measured.tasks)] for row in rows]
    tops = [max(each.mean for each in column) for column in zip(*scores, strict=True)]
    body = [
        [
            Cell(row.name),
            number_cell(row.trainable, ",d"),
            number_cell(row.percent, ".3f"),
            *(score_cell(score, top) for score, top in zip(each, tops, strict=True)),
            Cell("yes" if row.name in front else "" if row.name in worse else "may be"),
            number_cell(row.minutes, ".2f"),
            number_cell(row.memory, ",.0f"),
        ]
        for row, each in zip(rows, scores, strict=True)
    ]
    majority = [measured.rows[0].majority[task] for task in measured.tasks]
    known = [*([sum(majority) / len(majority)] if several else []), *majority]
    head = ["configuration", "trainable", "% of backbone", *["average"][:several], *measured.tasks]
    foot = ["majority class", "", "", *(number(score, ".2f") for score in known), "", "", ""]
    return Table([*head, "frontier", "minutes", "MiB"], body, foot)


def comparison_table(measured: Measured, group: str, other: str) -> Table:
    """The differences of the rows of a group and those of another at equal parameters."""
    found, _ = at_equal_size(measured, group, other)
    rows = [
        [
            Cell(each.row.name),
            number_cell(each.row.trainable, ",d"),
            Cell(each.other.name),
            number_cell(each.other.trainable, ",d"),
            Cell(f"{each.by.mean:+.2f}", each.by.mean),
            Cell("" if math.isnan(each.by.low) else f"[{each.by.low:+.2f}, {each.by.high:+.2f}]"),
            Cell(shown_p(each.p), each.p),
            Cell(each.verdict),
        ]
        for each in sorted(found, key=lambda each: -each.by.mean)
    ]
    return Table([group, "trainable", "against", "trainable", "difference", "95% interval", "p", "verdict"], rows)


def score_cell(score: Estimate, top: float) -> Cell:
    return Cell(interval(score), score.mean, score.mean == top)


def picture(measured: Measured) -> bytes | None:
    """The frontier as a PNG with a light ground, for pages that show no SVG; None if there is no frontier."""

    def draw() -> bytes | None:
        figure, buffer = frontier_figure(measured, DOTS_PER_INCH), io.BytesIO()
        if figure is None:
            return None
        axes = figure.axes[0]
        for place, group in enumerate(measured.groups):
            axes.plot([], [], label=group, **legend_of(place))
        axes.legend(frameon=False, fontsize=8, loc="lower right")
        figure.savefig(buffer, dpi=DOTS_PER_INCH, facecolor=SURFACE[0], metadata={"Software": None})
        return buffer.getvalue()

    return drawn(draw)


def legend_of(place: int) -> dict:
    """How the points of a group look."""
    style = Style(place)
    return {"color": style.colour, "linestyle": "", **style.points()}
