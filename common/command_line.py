"""Command lines other than `--key value`."""

import argparse
from typing import NoReturn

from common.errors import ConfigError


class Parser(argparse.ArgumentParser):
    """An argument parser that reports wrong arguments like any other wrong input, as ConfigError."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {' '.join(self.format_usage().split())}")
