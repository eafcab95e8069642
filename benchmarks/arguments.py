"""The command lines of the benchmarks."""

import argparse


class Parser(argparse.ArgumentParser):
    """Wrong arguments end in one line."""

    def error(self, message):
        self.exit(2, f"error: {message}\n")


def whole(text: str, least: int = 1) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of at least {least}")
    return int(text)
