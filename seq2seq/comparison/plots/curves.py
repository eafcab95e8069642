"""Learning curves, with a line per configuration and a band for its seeds."""

import math

import numpy

from seq2seq.comparison.configurations import Configuration
from seq2seq.comparison.numbers import Statistic
from seq2seq.comparison.plots.drawing import Style, log_if_wide, new_figure, short_number, to_svg
from seq2seq.comparison.plots.parts import MANY, Plot, compared, largest, seeds
from seq2seq.comparison.sections import Section

POINTS_OF_A_LINE = 200
GRADIENT = "norm of the gradient"


def curves(section: Section, split: str, prefix: str) -> Plot | None:
    """Plot training loss, the norm of its gradient and validation score against the optimizer step."""
    panels = [
        ("training loss", "loss"),
        (GRADIENT, "grad_norm"),
        ("average_metrics, validation", "eval_average_metrics"),
    ]
    families = compared(section)
    panels = [(name, key) for name, key in panels if any(history(c, key)[0].size for c in families)]
    if not panels:
        return None
    figure, every = new_figure(0.2 + 1.9 * len(panels), rows=len(panels), sharex=True)
    shown = []
    for axes, (name, key) in zip(every, panels, strict=True):
        axes.set_title(name)
        lines = [(i, *history(c, key)) for i, c in enumerate(families)]
        lines = [line for line in lines if line[1].size]
        shown += [i for i, *_ in lines]
        for i, steps, means, deviations, diverged in reversed(lines):  # the best on top
            draw_curve(axes, Style(i), steps, means, deviations, diverged, len(lines))
        means = numpy.concatenate([line[2] for line in lines])
        if key in ("loss", "grad_norm"):
            log_if_wide(axes, means.min(), means.max())
        axes.locator_params(axis="x", nbins=6)
        axes.xaxis.set_major_formatter(lambda step, _: short_number(step))
    every[-1].set_xlabel("optimizer step")
    title = "Learning curves"
    caption = (
        f"Mean over {seeds(families)} of the values logged at each step; the band is ± one sample standard deviation, "
        "where there are several seeds. × at the end of a line: the last value of a seed was not finite."
    )
    if any(name == GRADIENT for name, _ in panels):
        caption += f" The {GRADIENT} is measured before clipping."
    return Plot(title, to_svg(figure, prefix, title), caption + largest(section), sorted(set(shown)))


def history(configuration: Configuration, key: str):
    """Statistics over seeds of the logged values.

    Returns arrays of steps, means and standard deviations of the finite values, and whether the last value of a run is
    not finite.
    """
    by_step, diverged = {}, False
    for run in configuration.runs:
        logged = [(entry["step"], entry[key]) for entry in run.history if "step" in entry and key in entry]
        diverged |= bool(logged) and not math.isfinite(logged[-1][1])
        for step, value in logged:
            if math.isfinite(value):
                by_step.setdefault(step, []).append(value)
    stride = math.ceil(len(by_step) / POINTS_OF_A_LINE) or 1
    steps = sorted(by_step)
    steps = steps[::-1][::stride][::-1]  # keeps the last step
    found = [Statistic.of(by_step[step]) for step in steps]
    return numpy.array(steps), *numpy.array([(s.mean, s.deviation) for s in found]).reshape(-1, 2).T, diverged


def draw_curve(axes, style: Style, steps, means, deviations, diverged: bool, lines: int) -> None:
    """Draw one line, its band, and a cross at its end if it diverged."""
    points = {"markersize": 4.5, **style.points()} if len(steps) <= 12 else {}
    (line,) = axes.plot(steps, means, **style.line(), **points, linewidth=1.6 if lines <= MANY else 1.2)
    band = axes.fill_between(steps, means - deviations, means + deviations, color=style.colour, linewidth=0)
    band.set_alpha(0.16 if lines <= MANY else 0.08)
    style.tag(line, band)
    if diverged:
        style.tag(*axes.plot(steps[-1], means[-1], "x", color=style.colour, markersize=8, markeredgewidth=2))
