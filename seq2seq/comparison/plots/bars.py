"""Scores by task as grouped bars, with the score of the majority class."""

import math

from seq2seq.comparison.configurations import Configuration
from seq2seq.comparison.plots.drawing import INK, MUTED, SMALL, WIDTH, Style, new_figure, to_svg
from seq2seq.comparison.plots.parts import DEVIATION, MANY, Plot, compared, largest, seeds, span
from seq2seq.comparison.sections import Section

BARS_IN_A_ROW = 48
SHARE = 0.86  # of a group's place that its bars take
POINTS = 72 * WIDTH - 50  # width of the axes, about
VALUE, NUMBER = 22, 11  # points that the value of a bar and the number of a configuration need


def bars(section: Section, split: str, prefix: str) -> Plot | None:
    """Plot groups of bars, one per task and metric."""
    shown = compared(section)
    columns = section.columns
    rows = math.ceil(len(columns) / max(1, BARS_IN_A_ROW // len(shown)))
    per_row = math.ceil(len(columns) / rows)
    chunks = [columns[i : i + per_row] for i in range(0, len(columns), per_row)]
    figure, every = new_figure(0.5 + 2.4 * len(chunks), rows=len(chunks), sharey=True)
    places = max(per_row, 3 if len(shown) <= MANY // 2 else 1)  # so that a few bars are not too wide
    width = min(SHARE / len(shown), 0.22)
    points = POINTS / places * width
    for axes, chunk in zip(every, chunks, strict=True):
        for place, column in enumerate(chunk):
            draw_group(axes, place, column, shown, width, points)
            draw_majority(axes, place, section.majority(*column), width * len(shown))
        # The same number of places in each row, so that all bars have the same width.
        middle, half = (per_row - 1) / 2, places / 2
        axes.set_xlim(middle - half, middle + half)
        repeated = {task for task, _ in columns if sum(task == other for other, _ in columns) > 1}
        names = [f"{task}\n{metric}" if task in repeated else task for task, metric in chunk]
        axes.set_xticks(range(len(chunk)), names, color=INK[0])
        axes.tick_params(axis="x", length=0, pad=5 if len(shown) <= MANY else 16 if points >= NUMBER else 26)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel(f"score, {split}")
    heights = [edge for c in shown for column in columns for edge in span(c.score(*column))]
    heights += [section.majority(*column) for column in columns]
    scores = [height for height in heights if math.isfinite(height)]
    every[0].set_ylim(min([0, *(1.1 * score for score in scores)]), 1.12 * max([0, *scores]) or 1)
    title = "Scores by task"
    metrics = ", ".join(sorted({metric for _, metric in columns}))
    caption = (
        f"Mean {metrics} on {split} over {seeds(shown)}; {DEVIATION} The dashed line across a group is the majority "
        "class: the score of always predicting the most frequent target."
    )
    return Plot(title, to_svg(figure, prefix, title), caption + largest(section), list(range(len(shown))))


def draw_group(axes, place: int, column: tuple, shown: list[Configuration], width: float, points: float) -> None:
    """Draw the bars of one task and metric, in the order of the configurations.

    place, width: of the group and of a bar, in units of the axis.
    points: width of a bar in points, which decides what is written at it.
    """
    for i, configuration in enumerate(shown):
        score, style = configuration.score(*column), Style(i)
        x = place + (i - (len(shown) - 1) / 2) * width
        if len(shown) > MANY:
            number_bar(axes, style, x, points)
        if not math.isfinite(score.mean):
            continue
        inner = SHARE * width
        (filled,) = axes.bar(x, score.mean, inner, color=style.colour, alpha=style.tint)
        (edge,) = axes.bar(x, score.mean, inner, facecolor="none", edgecolor=style.colour, linewidth=0.8)
        low, high = span(score)
        (deviation,) = axes.plot([x, x], [low, high], color=INK[0], linewidth=0.9)
        style.tag(filled, edge, deviation)
        if points >= VALUE:
            words = {"textcoords": "offset points", "ha": "center", "fontsize": SMALL}
            style.tag(axes.annotate(f"{score.mean:.1f}", (x, max(high, 0)), (0, 3), **words))


def number_bar(axes, style: Style, x: float, points: float) -> None:
    """Write the configuration's number below its bar: on two lines in turn where bars are narrow, or only some."""
    lines = 1 if points >= NUMBER else 2
    every = math.ceil(NUMBER / lines / points)
    nth, left_out = divmod(style.index, every)
    if not left_out:
        words = {"ha": "center", "va": "top", "fontsize": SMALL, "color": MUTED[0], "textcoords": "offset points"}
        below = -3 - 10 * (nth % lines)
        style.tag(axes.annotate(str(style.index + 1), (x, 0), (0, below), xycoords=("data", "axes fraction"), **words))


def draw_majority(axes, place: int, score: float, width: float) -> None:
    """Draw the majority score as a line across a group."""
    if math.isfinite(score):
        ends = [place - width / 2 - 0.03, place + width / 2 + 0.03]
        (line,) = axes.plot(ends, [score, score], color=INK[0], linewidth=1.2, dashes=(3, 2))
        keywords = {"frameon": False, "fontsize": SMALL, "borderaxespad": 0.2}
        axes.legend([line], ["majority class"], loc="lower right", bbox_to_anchor=(1, 1), **keywords)
