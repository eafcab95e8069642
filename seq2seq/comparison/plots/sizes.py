"""Score against the number of training rows, for configurations trained with several such numbers."""

import math

from seq2seq.comparison.configurations import Configuration
from seq2seq.comparison.plots.drawing import MUTED, Style, new_figure, set_ticks, to_svg
from seq2seq.comparison.plots.parts import DEVIATION, Plot, draw_point, score_name, seeds
from seq2seq.comparison.sections import Section


def sizes(section: Section, split: str, prefix: str) -> Plot | None:
    """Plot a line per family with a point per number of training rows; "all" is at the right end."""
    families = {i: family for i, family in enumerate(section.families) if any(math.isfinite(c.rows) for c in family)}
    members = [c for family in families.values() for c in family]
    rows = sorted({c.rows for c in members})
    if len(rows) < 2:
        return None
    figure, (axes,) = new_figure(3.7)
    axes.set_xscale("log")
    finite = [row for row in rows if math.isfinite(row)]
    every = finite[-1] * max(2.0, (finite[-1] / finite[0]) ** 0.3)  # position of "all"
    for nth, (i, family) in enumerate(families.items()):
        aside = 1.0 + 0.01 * (nth - (len(families) - 1) / 2)
        draw_family(axes, Style(i), family, every, aside)
    labels = [f"{row:,}" for row in finite]
    if len(finite) < len(rows):
        axes.axvline((every * finite[-1]) ** 0.5, color=MUTED[0], linewidth=0.8, linestyle=(0, (1, 3)))
        set_ticks(axes.xaxis, [*finite, every], [*labels, "all"])
    else:
        set_ticks(axes.xaxis, finite, labels)
    axes.set(xlabel="training rows of each task", ylabel=f"{score_name(section)}, {split}")
    title = "Score against training rows"
    caption = (
        f"Mean {score_name(section)} on {split} over {seeds(members)}; {DEVIATION} Points of the same size are shifted "
        "slightly, so that their deviations can be read."
    )
    return Plot(title, to_svg(figure, prefix, title), caption, list(families))


def draw_family(axes, style: Style, family: list[Configuration], every: float, aside: float) -> None:
    """Draw the line and points of one family."""
    ordered = sorted((c for c in family if math.isfinite(c.average.mean)), key=lambda c: c.rows)
    places = [(c.rows if math.isfinite(c.rows) else every) * aside for c in ordered]
    (line,) = axes.plot(places, [c.average.mean for c in ordered], **style.line())
    style.tag(line)
    for x, configuration in zip(places, ordered, strict=True):
        draw_point(axes, style, x, configuration.average)
