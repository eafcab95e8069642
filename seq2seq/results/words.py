"""The results of a sweep as Markdown."""

import math
from collections.abc import Sequence

from seq2seq.comparison.words import safe
from seq2seq.results.comparisons import SAME_SIZE, Difference, at_equal_size, behind, frontier
from seq2seq.results.conclusions import conclusions, interval, is_at_edge, limits, shown_p
from seq2seq.results.measured import Measured, Row

AVERAGE = "average"


def markdown(measured: Measured, command: str, records: str, picture: str | None) -> str:
    """The whole page.

    command: that made it. records: where the raw numbers are, relative to the page. picture: of the frontier.
    """
    parts = [f"# Results of the sweep {safe(measured.name)}", made_of(measured, command, records)]
    if picture:
        parts.append(f"![Score against trainable parameters]({picture})")
    parts += ["## What it says", bullets(conclusions(measured))]
    parts += ["## What it cannot say", bullets(limits(measured))]
    parts += ["## Scores", NOTE, table(score_table(measured))]
    for group, others in (measured.sweep.get("compare") or {}).items():
        for other in others:
            found, _ = at_equal_size(measured, group, other)
            if found:
                parts += [
                    f"## {safe(group)} and {safe(other)} at equal parameters",
                    COMPARED,
                    table(difference_table(found)),
                ]
    published = published_table(measured)
    if published:
        parts += ["## Beside published scores", safe(measured.sweep["published"]["source"]), table(published)]
    chosen = chosen_table(measured)
    if chosen:
        parts += ["## Chosen on validation", CHOSEN, table(chosen)]
    return "\n\n".join(parts) + "\n"


NOTE = (
    "Mean over seeds, with half of the 95% interval; on average over the tasks, whose variances are added up. Minutes "
    'are of one processor, MiB the peak of the process. Frontier: "yes" by mean scores, "may be" if it is not '
    "worse than the best row with no more parameters by more than the seeds explain (Holm over all rows)."
)
COMPARED = (
    f"Paired by task and seed; a partner has at most {SAME_SIZE:g} times as many parameters, or as few. Intervals are "
    "95% each, p is adjusted for all rows of the table (Holm)."
)
CHOSEN = "With the first seed and fewer rows; * marks an end of what was tried."


def made_of(measured: Measured, command: str, records: str) -> str:
    """How the page was made, and from what."""
    cells = sum(len(row.records) for row in measured.rows)
    tasks = ", ".join(measured.tasks)
    machines = "; ".join(measured.machines)
    return (
        f"Made by `{command}` from [{records}]({records}), which has every cell in a line: {len(measured.rows)} rows, "
        f"{len(measured.tasks)} tasks ({tasks}), seeds {', '.join(map(str, measured.seeds))}, {cells} reported runs, "
        f"scored on {measured.split}. Machine: {machines}."
    )


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {safe(line)}" for line in lines)


def table(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head, the first column is text and the others are numbers."""
    head, *body = rows
    lines = [
        list(map(safe, head)),
        [":--", *["--:"] * (len(head) - 1)],
        *([safe(cell) for cell in row] for row in body),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def score_table(measured: Measured) -> list[list[str]]:
    """Scores and costs of every row, the best first."""
    front = {row.name for row in frontier(measured.rows)}
    worse = behind(measured.rows)
    head = ["", "trainable", AVERAGE, *measured.tasks, "frontier", "minutes", "MiB"]
    if len(measured.tasks) == 1:
        head.remove(AVERAGE)
    rows = [head]
    for row in sorted(measured.rows, key=lambda row: -row.average.mean):
        average = [interval(row.average)] if len(measured.tasks) > 1 else []
        place = "yes" if row.name in front else "" if row.name in worse else "may be"
        scores = [interval(row.on(task)) for task in measured.tasks]
        rows.append(
            [
                row.name,
                f"{row.trainable:,}",
                *average,
                *scores,
                place,
                number(row.minutes, ".2f"),
                number(row.memory, ",.0f"),
            ]
        )
    rows.append(majority_row(measured, len(head)))
    return rows


def majority_row(measured: Measured, width: int) -> list[str]:
    """The majority class, as the last row of the scores."""
    scores = [measured.rows[0].majority[task] for task in measured.tasks]
    average = [number(sum(scores) / len(scores), ".2f")] if len(scores) > 1 else []
    cells = ["majority class", "0", *average, *(number(score, ".2f") for score in scores)]
    return cells + [""] * (width - len(cells))


def difference_table(found: Sequence[Difference]) -> list[list[str]]:
    """Differences, the largest first."""
    rows = [["", "trainable", "against", "trainable", "difference", "95% interval", "p", ""]]
    for each in sorted(found, key=lambda each: -each.by.mean):
        ends = f"[{each.by.low:+.2f}, {each.by.high:+.2f}]" if each.by.low == each.by.low else ""
        cells = [each.row.name, f"{each.row.trainable:,}", each.other.name, f"{each.other.trainable:,}"]
        rows.append([*cells, f"{each.by.mean:+.2f}", ends, shown_p(each.p), each.verdict])
    return rows


def published_table(measured: Measured) -> list[list[str]]:
    """Our scores and those of others, in turn; [] if none of our rows is in theirs."""
    scores = (measured.sweep.get("published") or {}).get("scores", {})
    tasks = [task for task in measured.tasks if any(task in row for row in scores.values())]
    rows = [["", *(f"{task}{kind}" for task in tasks for kind in ("", ", published"))]]
    for row in measured.rows:
        theirs = scores.get(row.name)
        if theirs:
            rows.append([row.name, *(cell for task in tasks for cell in beside(row, theirs, task))])
    return rows if len(rows) > 1 else []


def beside(row: Row, theirs: dict[str, float], task: str) -> tuple[str, str]:
    """Our score on a task, and theirs."""
    return interval(row.on(task)), f"{theirs[task]:.2f}" if task in theirs else ""


def chosen_table(measured: Measured) -> list[list[str]]:
    """The values chosen for each row and task; [] if nothing was chosen."""
    rows = [["", *measured.tasks]]
    for row in measured.rows:
        cells = [chosen_words(row, task) for task in measured.tasks]
        if any(cells):
            rows.append([row.name, *cells])
    return rows if len(rows) > 1 else []


def chosen_words(row: Row, task: str) -> str:
    parts = []
    for name, value in row.chosen(task).items():
        words = f"{value:g}" if isinstance(value, float) else str(value)
        label = "" if list(row.chosen(task)) == ["learning_rate"] else f"{name} "
        parts.append(f"{label}{words}{'*' if is_at_edge(row, task, name) else ''}")
    return ", ".join(parts)


def number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)
