"""What several plots share: their captions' words, and a mean drawn with its deviation."""

import math
from dataclasses import dataclass

from seq2seq.comparison.configurations import Configuration, Section, Statistic
from seq2seq.comparison.plots.drawing import Style

MANY = 8  # configurations beyond which their numbers are written, colours alone being too alike
DEVIATION = "± is the sample standard deviation over seeds, where there are several."


@dataclass(frozen=True)
class Plot:
    """A drawing and what to say about it; `shown`: its configurations, by their index in the section's families."""

    title: str
    svg: str
    caption: str
    shown: list[int]


def compared(section: Section) -> list[Configuration]:
    """Each family at its largest training set."""
    return [family[0] for family in section.families]


def score_name(section: Section) -> str:
    """What the scores of an average over the section's tasks and metrics are."""
    if len(section.columns) == 1:
        return "{1} on {0}".format(*section.columns[0])
    return "average_metrics"


def seeds(configurations: list[Configuration]) -> str:
    """How many runs stand behind each mean."""
    counts = sorted({len(c.runs) for c in configurations})
    if counts == [1]:
        return "one seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def largest(section: Section) -> str:
    """The remark that smaller training sets are not shown, where there are any."""
    if len(section.families) == len(section.configurations):
        return ""
    return " Each configuration is shown at its largest training set."


def span(score: Statistic) -> list[float]:
    """From one standard deviation below the mean to one above; the mean where there is none."""
    deviation = score.deviation if math.isfinite(score.deviation) else 0.0
    return [score.mean - deviation, score.mean + deviation]


def draw_point(axes, style: Style, x: float, score: Statistic, **keywords) -> None:
    """A mean with its deviation."""
    (bar,) = axes.plot([x, x], span(score), color=style.colour, linewidth=1.3, alpha=0.75, zorder=2)
    (mark,) = axes.plot(x, score.mean, color=style.colour, markersize=7.5, zorder=3, **style.points(), **keywords)
    style.tag(bar, mark)
