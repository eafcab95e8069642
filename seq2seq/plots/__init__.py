"""The plots of a report as SVG."""

from seq2seq.configurations import Section
from seq2seq.plots.bars import bars
from seq2seq.plots.curves import curves
from seq2seq.plots.drawing import drawn
from seq2seq.plots.parameters import parameters
from seq2seq.plots.parts import Plot
from seq2seq.plots.sizes import sizes


def plots(section: Section, split: str, prefix: str) -> list[Plot]:
    """What there is to draw of a section, in the order of the page. Raises ConfigError without matplotlib."""
    made = [
        drawn(make, section, split, f"{prefix}p{number}")
        for number, make in enumerate((parameters, curves, bars, sizes))
    ]
    return [plot for plot in made if plot]
