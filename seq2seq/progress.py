"""Progress bars."""

import sys

import datasets
from transformers.utils import logging


def bars_on_terminals_only() -> bool:
    """Hide the bars of other libraries unless standard error is a terminal, and those of `datasets` always.

    In a file every step of a bar would be a line that overwrites the last one by control characters.
    Returns False if bars are hidden.
    """
    datasets.disable_progress_bars()
    shown = sys.stderr.isatty()
    if not shown:
        logging.disable_progress_bar()
    return shown
