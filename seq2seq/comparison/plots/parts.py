"""Parts shared by several plots: caption texts, and a mean drawn with its deviation."""

import math
from dataclasses import dataclass

from seq2seq.comparison.configurations import Configuration
from seq2seq.comparison.numbers import Statistic
from seq2seq.comparison.plots.drawing import Style
from seq2seq.comparison.sections import Section

MANY = 8  # with more configurations their numbers are written as well: colours alone are too similar
DEVIATION = "± is the sample standard deviation over seeds, where there are several."


@dataclass(frozen=True)
class Plot:
    """A drawing with its texts.

    title: heading.
    drawing: the plot itself, an element of HTML.
    caption: explanation below the drawing.
    shown: configurations in the legend, as indices into the section's families.
    """

    title: str
    drawing: str
    caption: str
    shown: list[int]


def compared(section: Section) -> list[Configuration]:
    """The configuration of each family with the largest training set."""
    return [family[0] for family in section.families]


def score_name(section: Section) -> str:
    """Name of the average score over the section's tasks and metrics."""
    if len(section.columns) == 1:
        return "{1} on {0}".format(*section.columns[0])
    return "average_metrics"


def seeds(configurations: list[Configuration]) -> str:
    """Number of runs per mean, in words."""
    counts = sorted({len(c.runs) for c in configurations})
    if counts == [1]:
        return "one seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def largest(section: Section) -> str:
    """Remark that smaller training sets are not shown, if there are any."""
    if len(section.families) == len(section.configurations):
        return ""
    return " Each configuration is shown at its largest training set."


def span(score: Statistic) -> list[float]:
    """Mean minus and plus one standard deviation; the mean twice if there is no deviation."""
    deviation = score.deviation if math.isfinite(score.deviation) else 0.0
    return [score.mean - deviation, score.mean + deviation]


def draw_point(axes, style: Style, x: float, score: Statistic, **keywords) -> None:
    """Draw a mean with its deviation."""
    (bar,) = axes.plot([x, x], span(score), color=style.colour, linewidth=1.3, alpha=0.75, zorder=2)
    (mark,) = axes.plot(x, score.mean, color=style.colour, markersize=7.5, zorder=3, **style.points(), **keywords)
    style.tag(bar, mark)
