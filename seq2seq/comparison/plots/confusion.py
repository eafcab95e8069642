"""The confusion matrix of the best configuration, as a table whose cells are coloured by their share of the row."""

import html

from seq2seq.comparison.classes import Confusion
from seq2seq.comparison.plots.parts import Plot, seeds
from seq2seq.comparison.sections import Section

MOST_CLASSES = 12
STRONG = 0.7  # share of a row above which a cell's colour is so strong that its text has the page's colour
NONE = "no class"


def confusion(section: Section, split: str, task: str) -> Plot | None:
    """Draw the confusion matrix of a task, summed over seeds; None if the best configuration has none."""
    best = section.best
    matrix = best.confusion(task)
    if matrix is None:
        return None
    several = f", summed over {seeds([best])}" if len(best.runs) > 1 else ""
    caption = (
        f"Rows of {split} of {task} by true class (down) and by the class that {best.name} predicts (across){several}. "
        "The stronger its colour, the larger a cell's share of the true class."
    )
    if matrix.counts[:, -1].any():
        caption += f" {NONE}: the prediction is no label."
    if len(matrix.labels) > MOST_CLASSES:
        caption += f" The {MOST_CLASSES - 1} largest of {len(matrix.labels)} classes are shown."
    return Plot(f"Confusion matrix, {task}", matrix_html(matrix.largest(MOST_CLASSES)), caption, [])


def matrix_html(matrix: Confusion) -> str:
    """The matrix in HTML; predictions that are no label have a column of their own if there are any."""
    counts = matrix.counts if matrix.counts[:, -1].any() else matrix.counts[:, :-1]
    columns = [*matrix.labels, NONE][: counts.shape[1]]
    head = "".join(f'<th scope="col"><span>{html.escape(name)}</span></th>' for name in columns)
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(label)}</th>{"".join(cell_html(cell, rows) for cell in row)}</tr>'
        for label, row, rows in zip(matrix.labels, counts.tolist(), matrix.rows.tolist(), strict=True)
    )
    return f'<table class="confusion"><thead><tr><td></td>{head}</tr></thead>\n<tbody>{body}</tbody></table>'


def cell_html(cell: int, rows: int) -> str:
    """A cell with its count, on a colour as strong as its share of `rows`."""
    share = cell / rows if rows else 0.0
    kind = ' class="strong"' if share > STRONG else ' class="zero"' if not cell else ""
    return f'<td{kind} style="--share:{share:.0%}" title="{share:.1%} of the true class">{cell:,}</td>'
