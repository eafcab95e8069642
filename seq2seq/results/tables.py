"""The tables of a sweep's results, for both pages."""

import math

from seq2seq.comparison.tables import Cell, Table, number_cell
from seq2seq.results.comparisons import SAME_SIZE, at_equal_size, behind, frontier, useful
from seq2seq.results.conclusions import interval, is_at_edge, shown_p
from seq2seq.results.measured import Measured, Row
from seq2seq.results.statistics import Estimate

SCORES = (
    "Mean over seeds, with half of the 95% interval, which is at least what rounding to one test row makes; on "
    "average over the tasks, whose variances are added up. Minutes are of one processor, MiB the peak of the process. "
    'Frontier, among rows of T5 that train on as many rows of data: "yes" by mean scores, "may be" if no row with no '
    "more parameters scores higher by more than the seeds explain (Bonferroni over all such pairs), and its mean is "
    "above the majority class."
)
COMPARED = (
    f"Paired by task and seed; a partner has at most {SAME_SIZE:g} times as many parameters, or as few; of several of "
    "one size it is the one with the same values of the grid, and then the best. Intervals are 95% each, p is adjusted "
    "for all rows of the table (Holm)."
)
CHOSEN = "By the score on validation; a number without a name is a learning rate, * marks an end of what was tried."


def ranked(measured: Measured) -> list[Row]:
    """The rows, the best first."""
    return sorted(measured.rows, key=lambda row: -row.average.mean)


def score_table(measured: Measured) -> Table:
    """Scores and costs of every row, the best of each column marked, and the majority class."""
    places = frontier_places(measured)
    several = len(measured.tasks) > 1
    rows = ranked(measured)
    scores = [[*([row.average] if several else []), *(row.on(task) for task in measured.tasks)] for row in rows]
    tops = [max(each.mean for each in column) for column in zip(*scores, strict=True)]
    body = [
        [
            Cell(row.name),
            number_cell(row.trainable, ",d"),
            number_cell(row.percent, ".3f"),
            *(score_cell(score, top) for score, top in zip(each, tops, strict=True)),
            Cell(places.get(row.name, "")),
            number_cell(row.minutes, ".2f"),
            number_cell(row.memory, ",.0f"),
        ]
        for row, each in zip(rows, scores, strict=True)
    ]
    majority = [measured.rows[0].majority[task] for task in measured.tasks]
    known = [*([sum(majority) / len(majority)] if several else []), *majority]
    head = ["configuration", "trainable", "% of backbone", *["average"][:several], *measured.tasks]
    foot = ["majority class", "", "", *(number_cell(score, ".2f").text for score in known), "", "", ""]
    return Table([*head, "frontier", "minutes", "MiB"], body, foot, SCORES)


def frontier_places(measured: Measured) -> dict[str, str]:
    """Whether a row is on the frontier, by name; without those that are not."""
    found = {}
    for part in measured.parts.values():
        worse = behind(part)
        found |= {row.name: "may be" for row in useful(part.rows) if row.name not in worse}
        found |= {row.name: "yes" for row in frontier(part.rows)}
    return found


def score_cell(score: Estimate, top: float) -> Cell:
    return Cell(interval(score), score.mean, score.mean == top)


def tables(measured: Measured) -> dict[str, Table]:
    """All tables but that of the scores, by title."""
    found = {
        **comparison_tables(measured),
        "Beside published scores": published_table(measured),
        "Chosen on validation": chosen_table(measured),
    }
    return {title: table for title, table in found.items() if table is not None}


def comparison_tables(measured: Measured) -> dict[str, Table]:
    """The differences at equal parameters between groups that the sweep names, by what is compared."""
    return {
        f"{group} and {other} at equal parameters": comparison_table(measured, group, other)
        for group, others in (measured.sweep.get("compare") or {}).items()
        for other in others
        if at_equal_size(measured, group, other)[0]
    }


def comparison_table(measured: Measured, group: str, other: str) -> Table:
    """The differences of the rows of a group and those of another, the largest first."""
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
    head = [group, "trainable", "against", "trainable", "difference", "95% interval", "p", "verdict"]
    return Table(head, rows, caption=COMPARED)


def published_table(measured: Measured) -> Table | None:
    """Our scores and those of others, in turn; None if none of our rows is in theirs."""
    published = measured.sweep.get("published") or {}
    scores = published.get("scores", {})
    tasks = [task for task in measured.tasks if any(task in row for row in scores.values())]
    rows = [
        [Cell(row.name), *(cell for task in tasks for cell in beside(row, scores[row.name], task))]
        for row in measured.rows
        if scores.get(row.name)
    ]
    head = ["configuration", *(f"{task}{kind}" for task in tasks for kind in ("", ", published"))]
    return Table(head, rows, caption=str(published.get("source", ""))) if rows else None


def beside(row: Row, theirs: dict[str, float], task: str) -> tuple[Cell, Cell]:
    """Our score on a task, and theirs."""
    ours = row.on(task)
    return Cell(interval(ours), ours.mean), number_cell(float(theirs.get(task, math.nan)), ".2f")


def chosen_table(measured: Measured) -> Table | None:
    """The values chosen for each row and task; None if nothing was chosen."""
    rows = [[Cell(row.name), *(Cell(chosen_words(row, task)) for task in measured.tasks)] for row in measured.rows]
    rows = [row for row in rows if any(cell.text for cell in row[1:])]
    return Table(["configuration", *measured.tasks], rows, caption=CHOSEN) if rows else None


def chosen_words(row: Row, task: str) -> str:
    parts = []
    for name, value in row.chosen(task).items():
        words = f"{value:g}" if isinstance(value, float) else str(value)
        label = "" if list(row.chosen(task)) == ["learning_rate"] else f"{name} "
        parts.append(f"{label}{words}{'*' if is_at_edge(row, task, name) else ''}")
    return ", ".join(parts)
