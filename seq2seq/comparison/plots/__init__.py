"""The plots of a report: SVG drawings, and the confusion matrix as a table."""

from seq2seq.comparison.plots.bars import bars
from seq2seq.comparison.plots.classes import classes
from seq2seq.comparison.plots.confusion import confusion
from seq2seq.comparison.plots.curves import curves
from seq2seq.comparison.plots.drawing import drawn
from seq2seq.comparison.plots.parameters import parameters
from seq2seq.comparison.plots.parts import Plot
from seq2seq.comparison.plots.sizes import sizes
from seq2seq.comparison.sections import Section


def plots(section: Section, split: str, prefix: str) -> list[Plot]:
    """The plots of a section, in the order of the page. Raises ConfigError if matplotlib is missing."""
    made = [
        drawn(make, section, split, f"{prefix}p{number}")
        for number, make in enumerate((parameters, curves, bars, sizes))
    ]
    for number, task in enumerate(section.tasks):
        made += [drawn(classes, section, split, task, f"{prefix}c{number}"), confusion(section, split, task)]
    return [plot for plot in made if plot]
