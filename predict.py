"""Answer the rows of a file: python predict.py MODEL FILE [--out FILE] [--scores]"""

import argparse
import sys
from typing import TYPE_CHECKING

from common.boundary import guarded
from common.command_line import Parser
from common.errors import ConfigError
from common.requirements import check_installed

if TYPE_CHECKING:
    from seq2seq.predicting import Prediction


def predict(*given, **options) -> "Prediction":
    """Answer the rows of a file from Python; see `seq2seq.predicting.predict`."""
    from seq2seq import predicting  # takes seconds to import, which a wrong argument should not

    return predicting.predict(*given, **options)


USAGE = (
    "python predict.py MODEL FILE [--out FILE] [--scores] [--task TASK] [--overwrite] [--format FORMAT] "
    "[--delimiter CHARACTER] [--encoding ENCODING] [--columns NAME ..] [--traceback]"
)
INTERRUPTED = "interrupted before a row was answered; nothing was written"


def arguments(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        usage=USAGE,
        description="Write the rows of FILE, with all their columns and a prediction, in their order.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="directory of a run, an adapter or a merged model, or the hub id of an adapter",
    )
    parser.add_argument("file", metavar="FILE", help="CSV, TSV, JSON lines or parquet; - for standard input")
    parser.add_argument("--out", help="default: FILE with .predictions before its ending; - for standard output")
    parser.add_argument("--scores", action="store_true", help="also write the probability of each label")
    parser.add_argument("--task", help="which of several tasks that the model was trained on")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")
    parser.add_argument("--format", help="csv, tsv, jsonl, json or parquet (default: found from the content)")
    parser.add_argument("--delimiter", help="character between the cells of CSV and TSV")
    parser.add_argument("--encoding", help="encoding of FILE (default: UTF-8, or cp1252 if it is not)")
    parser.add_argument("--columns", nargs="+", metavar="NAME", help="columns of CSV and TSV without a header")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    return guarded(program, argv, INTERRUPTED)


def program(argv: list[str]) -> None:
    """Do what the command line says. Raises what `guarded` turns into one line."""
    check_installed()
    given = arguments(argv)
    from seq2seq.data.tables import KINDS, Form

    if given.format not in (None, *KINDS):
        raise ConfigError(f"--format is {given.format!r}; allowed: {', '.join(KINDS)}")
    columns = None if given.columns is None else tuple(given.columns)
    form = Form(given.format, given.delimiter, given.encoding, columns)
    options = {"scores": given.scores, "task": given.task, "overwrite": given.overwrite, "form": form}
    report(predict(given.model, given.file, given.out, **options))


def report(done: "Prediction") -> None:
    """Print what was done; beside standard output, to standard error."""
    file = sys.stdout if done.out else sys.stderr
    print(f"{done.rows:,} rows" + (f" in {done.out}" if done.out else ""), file=file)
    counts = {
        "without a prediction": done.empty,
        "longer than the model reads, and truncated": done.truncated,
        "with characters that the tokenizer does not know": done.unknown,
    }
    for what, count in counts.items():
        if count:
            print(f"{count:,} rows {what}", file=file)
    for metric, score in done.scores.items():
        print(f"{metric} {score:.2f} on the {done.scored:,} rows with a target that the model knows", file=file)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
