"""Compare finished runs: python report.py outputs/a outputs/b .. [--split test] [--output_dir outputs/report]"""

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.boundary import guarded
from common.command_line import Parser
from common.files import check_writable, write_file
from common.requirements import check_installed
from common.tables import csv_text

if TYPE_CHECKING:
    from rich.table import Table


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        usage="python report.py PATH .. [--split test] [--output_dir outputs/report] [--traceback]\n"
        "       python report.py --results CELLS.jsonl [--split test] [--output_dir outputs/report] [--traceback]",
        description="Collect the finished runs in and below the paths, print a table for each data set and write "
        "report.csv, report.md and report.html. Runs that differ only in their seed count as one configuration.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "paths", nargs="*", metavar="PATH", help="output directories of runs, or their parent directories"
    )
    parser.add_argument("--split", default="test", help="split whose scores to compare (default: test)")
    parser.add_argument("--output_dir", default="outputs/report", help="where to write (default: outputs/report)")
    parser.add_argument(
        "--results",
        metavar="CELLS.jsonl",
        help="instead, write results.md, results.html and results.png of the finished cells of a sweep",
    )
    given = parser.parse_args(argv)
    if bool(given.paths) == bool(given.results):
        parser.error("name directories of runs, or one sweep with --results")
    return given


def main(argv: list[str]) -> int:
    return guarded(program, argv, "interrupted; the same command starts again")


def program(argv: list[str]) -> None:
    """Do what the command line says. Raises what `guarded` turns into one line."""
    check_installed()
    given = arguments(argv)
    check_writable(Path(given.output_dir))
    if given.results:
        results(Path(given.results), given.split, Path(given.output_dir))
        return
    from seq2seq.comparison.configurations import collect, diverged

    configurations, warnings = collect(given.paths, given.split)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    report(configurations, given.split, Path(given.output_dir), diverged(given.paths, configurations))


def report(configurations: list, split: str, directory: Path, diverged: list[str]) -> None:
    """Write the three files of the report, then print the tables and which runs diverged."""
    from seq2seq.comparison.page import page
    from seq2seq.comparison.plots import plots
    from seq2seq.comparison.sections import sections, table_rows
    from seq2seq.comparison.words import markdown

    parts = sections(configurations)
    rows = [table_rows(part) for part in parts]
    drawn = [plots(part, split, f"r{number}") for number, part in enumerate(parts)]
    files = {
        "report.csv": csv_text([row for part in rows for row in part]),
        "report.md": markdown(parts, split, diverged),
        "report.html": page(parts, split, drawn, diverged),
    }
    for name, text in files.items():
        write_file(directory / name, text, key="output_dir")
    for part, own in zip(parts, rows, strict=True):
        print_table(own, f"scores on {split} of {part.title}")
    for line in diverged:
        print(line)
    for name in files:
        print(directory / name)


def results(cells: Path, split: str, directory: Path) -> None:
    """Write the results of a sweep as Markdown, as a page and as a picture, and print what they say."""
    from seq2seq.results.conclusions import conclusions
    from seq2seq.results.page import page, picture
    from seq2seq.results.reading import read_measured
    from seq2seq.results.words import markdown

    measured = read_measured(cells, split)
    for line in measured.partial:
        print(f"warning: {line} lacks tasks or seeds", file=sys.stderr)
    if measured.obsolete:
        print(f"warning: {measured.obsolete} cells that the sweep has no more are left out", file=sys.stderr)
    for name in measured.missing:
        print(f"warning: no run of {name} is reported yet", file=sys.stderr)
    given = ["--results", str(cells), "--output_dir", str(directory), *(["--split", split] if split != "test" else [])]
    command = shlex.join(["python", "report.py", *given])
    drawn = picture(measured)
    files = {
        "results.md": markdown(measured, command, os.path.relpath(cells, directory), drawn and "results.png"),
        "results.html": page(measured),
        **({} if drawn is None else {"results.png": drawn}),
    }
    for name, content in files.items():
        write_file(directory / name, content, key="output_dir")
    for line in conclusions(measured):
        print(f"- {line}")
    for name in files:
        print(directory / name)


def print_table(rows: list[dict], title: str) -> None:
    """Print the table of a section at full width, or without the least important columns on a narrow terminal."""
    from rich.console import Console

    columns, console, wide = terminal_columns(rows), Console(), Console(width=10_000)
    for spare in ("method", "MiB", "seconds", "% of backbone"):
        if console.is_terminal and wide.measure(filled(columns, title)).maximum > console.width:
            del columns[spare]
    (console if console.is_terminal else wide).print(filled(columns, title))


def terminal_columns(rows: list[dict]) -> dict[str, list[str]]:
    """Cells of each column; values that all rows of a configuration share appear only in the first of these rows."""
    first = [i == 0 or row["configuration"] != rows[i - 1]["configuration"] for i, row in enumerate(rows)]
    forms = {
        "configuration": ("configuration", "{}"),
        "method": ("method", "{}"),
        "task": ("task", "{}"),
        "metric": ("metric", "{}"),
        "mean": ("mean", "{:.2f}"),
        "± sd": ("standard_deviation", "{:.2f}"),
        "seeds": ("seeds", "{}"),
        "trainable": ("trainable_parameters", "{:,}"),
        "% of backbone": ("percent_of_backbone", "{:.3f}"),
        "seconds": ("seconds", "{:,.0f}"),
        "MiB": ("memory_mib", "{:,.0f}"),
        "training rows": ("low_resource", "{:,}"),
    }
    if all(row["low_resource"] is None for row in rows):
        del forms["training rows"]
    own = {"task", "metric", "mean", "± sd", "seeds"}
    return {
        name: [
            form.format(row[key]) if row[key] is not None and (name in own or starts) else ""
            for row, starts in zip(rows, first, strict=True)
        ]
        for name, (key, form) in forms.items()
    }


def filled(columns: dict[str, list[str]], title: str) -> "Table":
    """The columns as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        words = name in ("configuration", "method", "task", "metric")
        table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*map(Text, row))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
