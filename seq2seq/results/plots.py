"""The plots of a sweep: SVG drawings in which a colour is a group of configurations."""

import math
from collections import defaultdict
from itertools import pairwise

from seq2seq.comparison.plots.drawing import (
    INK,
    MUTED,
    Style,
    log_if_wide,
    log_ticks,
    new_figure,
    place_labels,
    set_ticks,
    short_number,
    shortened,
    to_svg,
)
from seq2seq.comparison.plots.parts import Plot
from seq2seq.results.comparisons import frontier, measurable
from seq2seq.results.measured import Measured, Row
from seq2seq.results.statistics import Estimate

ROW_HEIGHT = 0.165  # inches that a row needs in the plot by task
LONGEST = 30  # characters of a row's name in a plot
MOST_TASKS = 8  # side by side


def plots(measured: Measured) -> list[Plot]:
    """The plots, in the order of the page."""
    made = [frontier_plot(measured, "frontier"), task_plot(measured, "tasks"), curve_plot(measured, "curves")]
    from seq2seq.results.grid_plots import grid_plots

    return [plot for plot in (*made, *grid_plots(measured)) if plot]


def style_of(measured: Measured, row: Row) -> Style:
    return Style(measured.groups.index(row.group))


def error_bar(axes, style: Style, x: float, y: Estimate, upright: bool = True) -> None:
    """Draw a mean with its interval, if it has one."""
    at = [x, y.mean] if upright else [y.mean, x]
    if y.low == y.low:
        ends = ([x, x], [y.low, y.high]) if upright else ([y.low, y.high], [x, x])
        (bar,) = axes.plot(*ends, color=style.colour, linewidth=1.0, alpha=0.6, zorder=2)
        style.tag(bar)
    (mark,) = axes.plot(*at, color=style.colour, markersize=6.5, zorder=3, **style.points())
    style.tag(mark)


def frontier_figure(measured: Measured, dpi: int = 72):
    """Score against parameters as a figure, of the rows that train on most data; None without a frontier."""
    *_, part = measured.parts.values()
    rows = [row for row in measurable(part.rows) if row.trainable > 0]
    front = frontier(rows)
    if not front:
        return None
    figure, (axes,) = new_figure(4.6)
    axes.set_xscale("log")
    for row in rows:
        error_bar(axes, style_of(measured, row), row.trainable, row.average)
    sizes = [row.trainable for row in rows]
    low, high = min(sizes) / 2, max(sizes) * 2
    xs = [*(row.trainable for row in front), high]
    ys = [*(row.average.mean for row in front), front[-1].average.mean]
    (stairs,) = axes.plot(xs, ys, drawstyle="steps-post", color=MUTED[0], linewidth=1, dashes=(4, 2.5), zorder=1)
    ticks = log_ticks(low, high)
    set_ticks(axes.xaxis, ticks, [short_number(tick) for tick in ticks])
    axes.set_xlim(low, high)
    means = [row.average.mean for row in rows]
    spread = max(means) - min(means) or 1.0
    axes.set_ylim(min(means) - 0.08 * spread, max(means) + 0.14 * spread)
    axes.set(xlabel="trainable parameters", ylabel=f"{score_name(measured)}, {measured.split}")
    figure.set_dpi(dpi)  # names are placed by pixels
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    to_pixels = axes.transData.transform
    points = to_pixels([(row.trainable, row.average.mean) for row in rows])
    obstacles = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    for (x0, y0), (x1, y1) in pairwise(to_pixels(stairs.get_xydata())):
        obstacles += [(x0, y0 - 1, x1, y0 + 1), (x1 - 1, y0, x1 + 1, y1)]
    labels = [(row.trainable, row.average.mean, shortened(row.name, LONGEST), "", "bold") for row in reversed(front)]
    place_labels(axes, labels, obstacles)
    return figure


def frontier_plot(measured: Measured, prefix: str) -> Plot | None:
    """Score against parameters."""
    figure = frontier_figure(measured)
    if figure is None:
        return None
    *_, words = measured.parts
    title = "Score against trainable parameters" + f", {words}" * bool(words)
    caption = (
        "Mean with its 95% interval over seeds. The dashed line is the frontier by mean scores, whose rows are named "
        "where there is room; an interval may be cut off by the plot. A colour is a group."
    )
    return Plot(title, to_svg(figure, prefix, title), caption, list(range(len(measured.groups))))


def task_plot(measured: Measured, prefix: str) -> Plot:
    """Scores by task, a row for each configuration, the best first."""
    rows = sorted(measured.rows, key=lambda row: row.average.mean)
    tasks = measured.tasks[:MOST_TASKS]
    figure, every = new_figure(0.7 + ROW_HEIGHT * len(rows), columns=len(tasks), sharey=True)
    for axes, task in zip(every, tasks, strict=True):
        axes.set_title(task.removeprefix("vader-"))
        for place, row in enumerate(rows):
            error_bar(axes, style_of(measured, row), place, row.on(task), upright=False)
        axes.axvline(rows[0].majority[task], color=INK[0], linewidth=1, dashes=(3, 2))
        known = [] if math.isnan(rows[0].majority[task]) else [rows[0].majority[task]]
        means = [row.on(task).mean for row in rows] + known
        spread = max(means) - min(means) or 1.0
        axes.set_xlim(min(means) - 0.1 * spread, max(means) + 0.1 * spread)
        axes.locator_params(axis="x", nbins=3 if len(tasks) < 6 else 1)
        axes.tick_params(axis="both", labelsize=7)
        axes.set_ylim(-0.7, len(rows) - 0.3)
    every[0].set_yticks(range(len(rows)), [shortened(row.name, LONGEST) for row in rows], color=INK[0], fontsize=7)
    title = "Scores by task"
    caption = (
        f"Mean {metric_name(measured)} on {measured.split} with its 95% interval over seeds, ordered by the average "
        "over tasks. The dashed line is the majority class."
        + f" The first {len(tasks)} of {len(measured.tasks)} tasks."
        * (len(tasks) < len(measured.tasks))
    )
    return Plot(title, to_svg(figure, prefix, title), caption, list(range(len(measured.groups))))


def curve_plot(measured: Measured, prefix: str) -> Plot | None:
    """Training loss and validation score by step, of the best row of each group."""
    best = [max(measured.of(group), key=lambda row: row.average.mean) for group in measured.groups]
    losses = {row.name: history(row, 1) for row in best}
    scores = {row.name: history(row, 2) for row in best}
    panels = [("training loss", losses), (f"{score_name(measured)}, validation", scores)]
    panels = [(name, lines) for name, lines in panels if any(lines.values())]
    if not panels:
        return None
    figure, every = new_figure(0.3 + 2.1 * len(panels), rows=len(panels), sharex=True)
    for axes, (name, lines) in zip(every, panels, strict=True):
        axes.set_title(name)
        for row in best:
            if lines[row.name]:
                style = style_of(measured, row)
                steps, means = zip(*sorted(lines[row.name].items()), strict=True)
                (line,) = axes.plot(steps, means, **style.line(), markersize=4.5, **style.points())
                style.tag(line)
    values = [value for line in losses.values() for value in line.values()]
    if values:
        log_if_wide(every[0], min(values), max(values))
    every[-1].set_xlabel("optimizer step")
    title = "Learning curves"
    named = "; ".join(f"{row.group}: {row.name}" for row in best if losses[row.name] or scores[row.name])
    caption = f"Mean over tasks and seeds of the best row of each group ({named})."
    return Plot(title, to_svg(figure, prefix, title), caption, list(range(len(measured.groups))))


def history(row: Row, place: int) -> dict[int, float]:
    """The mean of a logged value by step, where all runs have logged it. place: 1 for the loss, 2 for the score."""
    by_step: dict[int, list[float]] = defaultdict(list)
    for record in row.records:
        for step, *values in record["history"]:
            if len(values) >= place and values[place - 1] is not None:
                by_step[step].append(values[place - 1])
    return {step: sum(values) / len(values) for step, values in by_step.items() if len(values) == len(row.records)}


def metric_name(measured: Measured) -> str:
    """Name of the score of a task."""
    names = {name.split("/")[-1] for row in measured.rows for r in row.records for name in r["scores"][measured.split]}
    names.discard("loss")
    return names.pop() if len(names) == 1 else "average_metrics"


def score_name(measured: Measured) -> str:
    """Name of the score, with what it is averaged over."""
    score = metric_name(measured)
    return f"mean {score} of {len(measured.tasks)} tasks" if len(measured.tasks) > 1 else score
