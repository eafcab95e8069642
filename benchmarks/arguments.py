"""Command-line parsing shared by the benchmarks."""

import argparse
import os


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line."""

    def error(self, message):
        self.exit(2, f"error: {message}\n")


def whole(text: str, least: int = 1) -> int:
    """Parse a whole number that is at least `least`."""
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at least {least}")
    return int(text)


def threads(text: str) -> int:
    """Parse a number of threads, at most that of the machine's cores."""
    number, cores = whole(text), os.cpu_count() or 1
    if number > cores:
        raise argparse.ArgumentTypeError(f"{number} is above the {cores} cores of this machine")
    return number
