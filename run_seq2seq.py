"""Train, evaluate and test T5 with adapters: python run_seq2seq.py FILE.json [--key value ..]"""

import os
import sys
from contextlib import ExitStack, contextmanager, redirect_stdout

from common.errors import ConfigError
from common.requirements import check_installed
from seq2seq.settings import Settings, load_settings, print_keys

USAGE = "usage: python run_seq2seq.py FILE.json [--key value ..]    (--help lists the keys)"


def main(argv: list[str]) -> int:
    if {"--help", "-h"} & set(argv):
        print(USAGE)
        print_keys()
        return 0
    try:
        if not argv or argv[0].startswith("--"):
            raise ConfigError(USAGE)
        check_installed()
        with silence_other_processes():
            settings, warnings = load_settings(argv[0], argv[1:])
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)
            execute(settings)
    except ConfigError as error:
        if is_first_process():
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command resumes from the last checkpoint, if there is one", file=sys.stderr)
        return 130
    return 0


def execute(settings: Settings) -> None:
    """Carry out one run, a series of runs or a dry run, as the settings say, and print the results."""
    # Imported here because these imports take seconds, and the error for a wrong key should not.
    from seq2seq.dry_run import dry_run
    from seq2seq.pipeline import run
    from seq2seq.series import is_series, run_series, series_members
    from seq2seq.summary import print_report, print_series

    series = is_series(settings)
    if settings.training.dry_run:
        dry_run(series_members(settings)[0] if series else settings)
    elif series:
        print_series(run_series(settings))
    else:
        print_report(run(settings))


def is_first_process() -> bool:
    """Return True in the first process of a distributed run, or in the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def silence_other_processes():
    """Discard the standard output of all but the first process; warnings and tracebacks are still shown."""
    with ExitStack() as stack:
        if not is_first_process():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
