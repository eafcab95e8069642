"""Train, evaluate and test T5 with adapters: python run_seq2seq.py FILE.json [--key value ..]"""

import os
import sys
from contextlib import ExitStack, contextmanager, redirect_stdout

from common.boundary import SWITCH, guarded, is_first_process
from common.errors import ConfigError
from common.requirements import check_installed
from seq2seq.settings import Settings, load_settings, print_keys
from seq2seq.translation import Notes

USAGE = "usage: python run_seq2seq.py FILE.json [--key value ..]    (--help lists the keys)"
INTERRUPTED = "interrupted; the same command resumes from the last checkpoint, if there is one"


def main(argv: list[str]) -> int:
    return guarded(program, argv, INTERRUPTED)


def program(argv: list[str]) -> None:
    """Do what the command line says. Raises what `guarded` turns into one line."""
    if {"--help", "-h"} & set(argv):
        print(USAGE)
        print(f"\non the command line only\n  {SWITCH}: show errors with their tracebacks")
        print_keys()
        return
    if not argv or argv[0].startswith("--"):
        raise ConfigError(USAGE)
    check_installed()
    with silence_other_processes():
        settings, notes = load_settings(argv[0], argv[1:])
        announce(settings, notes)
        execute(settings)


def announce(settings: Settings, notes: Notes) -> None:
    """Print how the keys were read, and which are not read at all."""
    from seq2seq.unread import unread_keys  # takes seconds to import, which the error for a wrong key should not

    try:
        notes.unread = unread_keys(settings)
    finally:
        for line in notes.lines() if is_first_process() else ():
            print(f"warning: {line}", file=sys.stderr)


def execute(settings: Settings) -> None:
    """Carry out one run, a series of runs or a dry run, as the settings say, and print the results."""
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


@contextmanager
def silence_other_processes():
    """Discard the standard output of all but the first process; warnings and tracebacks are still shown."""
    with ExitStack() as stack:
        if not is_first_process():
            stack.enter_context(redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
        yield


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
