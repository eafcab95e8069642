"""Score against trainable parameters, with the Pareto frontier."""

import math
from itertools import pairwise

from seq2seq.comparison.configurations import Configuration
from seq2seq.comparison.plots.drawing import (
    INK,
    MUTED,
    SMALL,
    Style,
    log_ticks,
    new_figure,
    place_labels,
    set_ticks,
    short_number,
    shortened,
    to_svg,
)
from seq2seq.comparison.plots.parts import DEVIATION, Plot, compared, draw_point, largest, score_name, seeds, span
from seq2seq.comparison.sections import Section


def pareto(points: list[tuple[float, float]]) -> list[int]:
    """Indices of the Pareto-optimal (cost, score) points: no other point is as good in both and better in one."""
    finite = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    return [i for i in finite if not any(beats(points[j], points[i]) for j in finite)]


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """True if `a` costs no more and scores no less than `b`, and differs from it."""
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def parameters(section: Section, split: str, prefix: str) -> Plot | None:
    """Plot score against trainable parameters, with the Pareto frontier."""
    shown = [(i, c) for i, c in enumerate(compared(section)) if math.isfinite(c.average.mean)]
    if not shown:
        return None
    figure, (axes,) = new_figure(4.2)
    places = parameter_axis(axes, [c for _, c in shown])
    front = pareto([(c.first.trainable, c.average.mean) for _, c in shown])
    corners = sorted((places[i], shown[i][1].average.mean) for i in front)
    right = axes.get_xlim()[1]
    xs, ys = [x for x, _ in corners] + [right], [y for _, y in corners] + [corners[-1][1]]
    (stairs,) = axes.plot(xs, ys, drawstyle="steps-post", color=MUTED[0], linewidth=1, dashes=(4, 2.5), zorder=1)
    for x, (i, c) in zip(places, shown, strict=True):
        draw_point(axes, Style(i), x, c.average)
    axes.scatter(*zip(*corners, strict=True), s=130, facecolor="none", edgecolor=INK[0], linewidth=0.9, zorder=2.5)
    axes.margins(y=0.14)
    axes.set_ylabel(f"{score_name(section)}, {split}")
    axes.legend([stairs], ["Pareto frontier"], loc="lower right", bbox_to_anchor=(1, 0), frameon=False, fontsize=SMALL)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    names = section.labels
    points = [
        (x, c.average, names[i], str(i + 1), n in front)
        for n, (x, (i, c)) in enumerate(zip(places, shown, strict=True))
    ]
    named = label_points(axes, points, stairs)
    title = "Score against trainable parameters"
    caption = (
        f"Mean {score_name(section)} on {split} over {seeds([c for _, c in shown])}; {DEVIATION} Ringed: the Pareto "
        "frontier, configurations whose score no other configuration reaches with as few trainable parameters."
    )
    return Plot(
        title, to_svg(figure, prefix, title), caption + largest(section), [] if named else [i for i, _ in shown]
    )


def parameter_axis(axes, configurations: list[Configuration]) -> list[float]:
    """Set up a log axis of trainable parameters, with zero at its left end if needed; returns the points' positions."""
    counts = [c.first.trainable for c in configurations]
    positive = [count for count in counts if count > 0]
    low, high = (min(positive), max(positive)) if positive else (1, 1)
    widen = max(1.6, (4 * low / high) ** 0.5)
    low, high, zero = low / widen, high * widen, low / widen / 2
    ticks = log_ticks(1.1 * low, high) if positive else []
    axes.set_xscale("log")
    labels = [short_number(tick) for tick in ticks]
    left = low
    if len(positive) < len(counts):
        left, ticks, labels = zero / 1.6, [zero, *ticks], ["0", *labels]
        axes.axvline(low, color=MUTED[0], linewidth=0.8, linestyle=(0, (1, 3)))
    set_ticks(axes.xaxis, ticks, labels)
    axes.set_xlim(left, high)
    axes.set_xlabel("trainable parameters")
    backbones = {c.first.backbone for c in configurations}
    if len(backbones) == 1 and positive and backbones != {0}:
        share = 100 / backbones.pop()
        top = axes.secondary_xaxis("top", functions=(lambda x: x * share, lambda x: x / share))
        percents = log_ticks(low * share, high * share)
        set_ticks(top.xaxis, percents, [f"{percent:.6g}%" for percent in percents])
        top.set_xlabel("of the backbone's parameters")
        top.spines["top"].set_visible(False)
    return [count if count > 0 else zero for count in counts]


def label_points(axes, points: list[tuple], stairs) -> bool:
    """Write names beside points, those on the frontier first and in bold.

    points: (x, score, name, number, whether on the frontier) of each point.
    stairs: the line of the frontier, which labels avoid.

    Returns True if all names are written in full, so that the plot needs no legend.
    """
    to_pixels = axes.transData.transform
    legend = axes.get_legend().get_window_extent()
    obstacles = [(legend.x0, legend.y0, legend.x1, legend.y1)]
    for x, score, *_ in points:
        (px, low), (_, high), (_, py) = to_pixels([(x, y) for y in (*span(score), score.mean)])
        obstacles += [(px - 6, py - 6, px + 6, py + 6), (px - 1, low, px + 1, high)]
    corners = to_pixels(stairs.get_xydata())
    for (x0, y0), (x1, y1) in pairwise(corners):  # a horizontal piece, then a vertical one
        obstacles += [(x0, y0 - 1, x1, y0 + 1), (x1 - 1, y0, x1 + 1, y1)]
    labels = [
        (x, score.mean, shortened(name), number, "bold" if leads else "normal")
        for x, score, name, number, leads in sorted(points, key=lambda point: not point[-1])
    ]
    return place_labels(axes, labels, obstacles) and all(name == shortened(name) for _, _, name, *_ in points)
