"""F1 by class as horizontal bars, one per configuration."""

import math

from seq2seq.comparison.plots.drawing import INK, SMALL, Style, new_figure, shortened, to_svg
from seq2seq.comparison.plots.parts import DEVIATION, Plot, compared, largest, seeds, span
from seq2seq.comparison.sections import Section

MOST_CLASSES = 20
MOST_BARS = 8  # configurations
BAR, GAP = 0.1, 0.12  # inches
WITH_VALUES = 3  # bars per class up to which they have room for their values


def classes(section: Section, split: str, task: str, prefix: str) -> Plot | None:
    """Draw the F1 of each class of a task, the largest class on top; None if no configuration has scores by class."""
    shown = [(i, c.classes(task)) for i, c in enumerate(compared(section))]
    shown = [(i, scores) for i, scores in shown if scores][:MOST_BARS]
    if not shown:
        return None
    counts = {label: scores.count for label, scores in shown[0][1].items()}
    labels = list(counts)[:MOST_CLASSES]
    bar = BAR * max(1, WITH_VALUES + 1 - len(shown))  # few bars are wider, and have their values beside them
    group = bar * len(shown) + GAP
    figure, (axes,) = new_figure(0.5 + group * len(labels))
    for place, label in enumerate(labels):
        for nth, (i, scores) in enumerate(shown):
            if label in scores:
                offset = (nth - (len(shown) - 1) / 2) * bar / group
                draw_bar(axes, Style(i), place + offset, bar / group, scores[label].f1, len(shown) <= WITH_VALUES)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_yticks(
        range(len(labels)), [f"{shortened(label, 22)} ({counts[label]:,})" for label in labels], color=INK[0]
    )
    axes.set_xlim(0, 109 if len(shown) <= WITH_VALUES else 101)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(f"F1 in percent, {split}")
    title = f"F1 by class, {task}"
    configurations = [compared(section)[i] for i, _ in shown]
    caption = f"Mean F1 of each class on {split} over {seeds(configurations)}, with its number of rows; {DEVIATION}"
    if len(counts) > len(labels):
        caption += f" The {len(labels)} largest of {len(counts)} classes are shown."
    if len(section.families) > len(shown):
        caption += f" {len(shown)} of {len(section.families)} configurations are shown, the best first."
    return Plot(title, to_svg(figure, prefix, title), caption + largest(section), [i for i, _ in shown])


def draw_bar(axes, style: Style, place: float, height: float, score, value: bool) -> None:
    """Draw one bar with its deviation and, if there is room, its value."""
    if not math.isfinite(score.mean):
        return
    inner = 0.86 * height
    (filled,) = axes.barh(place, score.mean, inner, color=style.colour, alpha=style.tint)
    (edge,) = axes.barh(place, score.mean, inner, facecolor="none", edgecolor=style.colour, linewidth=0.8)
    low, high = span(score)
    (deviation,) = axes.plot([low, high], [place, place], color=INK[0], linewidth=0.9)
    style.tag(filled, edge, deviation)
    if value:
        words = {"textcoords": "offset points", "va": "center", "fontsize": SMALL}
        style.tag(axes.annotate(f"{score.mean:.1f}", (max(high, 0), place), (3, 0), **words))
