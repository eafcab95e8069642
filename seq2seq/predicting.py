"""Answer the rows of a file: they are read, answered and written batch by batch, in constant memory."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path

from tqdm import tqdm

from common.errors import ConfigError, warn_once
from common.files import check_writable
from seq2seq.data.bad_rows import BadRows
from seq2seq.data.inputs import Inputs, inputs_of
from seq2seq.data.tables import Batch, Form, TableFile, open_table, where
from seq2seq.data.tables.writing import WRITERS, Writer
from seq2seq.predictor import Answers, Predictor
from seq2seq.progress import bars_on_terminals_only

ENDINGS = {"ndjson": "jsonl", "tab": "tsv"}
STANDARD = "-"  # standard input or output
COLUMN, SCORE = "prediction", "score_{}"
ROWS = 512  # that are read, answered and written at once


@dataclass
class Prediction:
    """What `predict` has done.

    out: the file that it wrote; null: standard output.
    rows: the number of rows.
    empty: of those, the number that have no answer, as a column of the template is empty.
    truncated, unknown: the numbers of sources that were too long, and that have characters the tokenizer does not know.
    scores: of the rows that have a target, by metric; empty if the file has none.
    scored: the number of those rows.
    """

    out: Path | None
    rows: int = 0
    empty: int = 0
    truncated: int = 0
    unknown: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    scored: int = 0


def predict(
    model: str | Path,
    file: str | Path,
    out: str | Path | None = None,
    *,
    scores: bool = False,
    task: str | None = None,
    overwrite: bool = False,
    form: Form | None = None,
) -> Prediction:
    """Answer the rows of a file, and write them with all their columns and "prediction".

    model: directory of a run, a saved adapter or a merged model.
    file: CSV, TSV, JSON lines or parquet, with the columns of the template; "-": standard input.
    out: file to write, in the format of its name; null: beside the file, "new.predictions.csv"; "-": standard output.
    scores: also write the probability of each label, in columns such as "score_Bug".
    task: which of several tasks that the model was trained on.
    overwrite: replace `out`.
    form: how the file is written; null: found from its content.
    Raises ConfigError. Rows that were answered before an error are kept in a file beside `out`, which the error names.
    """
    bars_on_terminals_only()
    with _input(file) as path:
        table = open_table(path, "FILE", form, "standard input" if path != file else None)
        target = _output_of(file, out, table, overwrite)
        predictor = Predictor(model, task)
        if scores and not predictor.labels:
            raise ConfigError("--scores is for tasks with labels; this model answers with any text")
        more = [COLUMN, *(SCORE.format(label) for label in predictor.labels if scores)]
        taken = next(filter(table.has, more), None)
        if taken is not None:
            raise ConfigError(f"{table.source.place} has a column {taken!r} already; rename it")
        done = Prediction(target)
        _answer(predictor, table, done, more)
        return done


def _answer(predictor: Predictor, table: TableFile, done: Prediction, more: list[str]) -> None:
    """Answer and write the rows. more: the columns that are added."""
    inputs, answered, bad = inputs_of(table, predictor.task), [], BadRows(table)
    for note in table.source.notes:
        warn_once(note)
    with _writing(table, done, more) as writer, _bar(inputs, table) as bar:
        for batch in pieces(table.batches(inputs.columns, whole=True)):
            broken = min(batch.problems, default=len(batch))
            part = batch.part(0, broken)
            sources, problems = inputs.sources(part)
            bad.add(part.first, problems)
            filled = [place for place, source in enumerate(sources) if source is not None]
            answers = predictor.answer([sources[place] for place in filled])
            writer.write(part, columns_of(answers, filled, len(part), more))
            wanted = inputs.targets(part)
            for text, place in zip(answers.texts, filled, strict=True):
                if wanted is not None and wanted[place] is not None:
                    answered.append((text, wanted[place]))
            done.rows, done.empty = done.rows + len(part), bad.count
            done.truncated, done.unknown = done.truncated + answers.truncated, done.unknown + answers.unknown
            bar.update(len(part))
            if broken < len(batch):
                raise ConfigError(
                    f"{table.source.place}, {where(table, {batch.first + broken: batch.problems[broken]})[0]}"
                )
        if not done.rows:
            raise ConfigError(f"{table.source.place} holds no rows")
    if bad.count:
        warn_once(f"{bad.message(done.rows)}; without a prediction")
    if answered:
        texts, rows = zip(*answered, strict=True)
        references = {name: [row[name] for row in rows] for name in rows[0]}
        done.scores, done.scored = predictor.task.score(texts, references), len(texts)


def pieces(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield batches of at most ROWS rows."""
    for batch in batches:
        for begin in range(0, len(batch), ROWS):
            yield batch.part(begin, min(begin + ROWS, len(batch)))


def columns_of(answers: Answers, filled: list[int], rows: int, more: list[str]) -> dict[str, list]:
    """Return the columns that are added to rows. filled: the places of the rows that have an answer."""
    columns: dict[str, list] = {name: [None] * rows for name in more}
    for answer, place in enumerate(filled):
        columns[more[0]][place] = answers.texts[answer]
        for label, name in enumerate(more[1:]):
            columns[name][place] = float(answers.probabilities[answer, label])
    return columns


@contextmanager
def _input(file: str | Path) -> Iterator[str | Path]:
    """Yield the path of a file; of standard input, that of a copy, as a file is read more than once."""
    if str(file) != STANDARD:
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="standard-input-") as copied:
        shutil.copyfileobj(sys.stdin.buffer, copied)
        copied.flush()
        yield copied.name


def _output_of(file: str | Path, out: str | Path | None, table: TableFile, overwrite: bool) -> Path | None:
    """Return the file to write; null for standard output. Raises ConfigError if it must not be replaced."""
    if str(out) == STANDARD or out is None and str(file) == STANDARD:
        return None
    path, given = Path(out or ""), Path(file)
    if out is None:
        name = given.name[:-3] if given.suffix.lower() == ".gz" else given.name
        path = given.with_name(f"{Path(name).stem}.predictions{Path(name).suffix or '.' + table.source.kind}")
    kind_of_output(path, table)
    check_writable(path.parent, "--out")
    if path.is_dir():
        raise ConfigError(f"--out is {str(path)!r}, a directory; name a file")
    if path.exists() and os.path.samefile(path, table.source.path):
        raise ConfigError(f"--out is {str(path)!r}, the file that is read; choose another")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists; set --overwrite to replace it, or --out to another file")
    return path


def kind_of_output(path: Path | None, table: TableFile) -> str:
    """Return the format of the output: that of its ending, else that of the input. Raises ConfigError for another."""
    ending = "" if path is None else path.suffix.lower().removeprefix(".")
    kind = ENDINGS.get(ending, ending) or table.source.kind
    if kind == "txt" or path is not None and path.suffix == table.source.path.suffix:
        kind = table.source.kind
    if kind not in WRITERS:
        raise ConfigError(
            f"--out is {str(path)!r}; its ending must be one of {', '.join(('.' + name) for name in WRITERS)}"
        )
    return kind


@contextmanager
def _writing(table: TableFile, done: Prediction, more: list[str]) -> Iterator[Writer]:
    """Yield a writer to the output, which gets its name when all is written.

    Raises ConfigError, or KeyboardInterrupt, that says where the rows before an error are.
    """
    path, kind = done.out, kind_of_output(done.out, table)
    if path is None:
        yield from _closing(WRITERS[kind](sys.stdout.buffer, table, kind, more))
        sys.stdout.buffer.flush()
        return
    unfinished = unused_name(path)
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        opened = open(unfinished, "xb")  # noqa: SIM115
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise ConfigError(f"--out: {path} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    try:
        with opened as file:
            yield from _closing(WRITERS[kind](file, table, kind, more))
        unfinished.replace(path)
    except BaseException as error:
        kept = f"the {done.rows:,} rows before it are in {unfinished}"
        if not done.rows:
            unfinished.unlink(missing_ok=True)
        elif isinstance(error, ConfigError):
            raise ConfigError(f"{error}; {kept}") from None
        elif isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt(f"interrupted; {kept}") from None
        raise


def unused_name(path: Path) -> Path:
    """Return the name of a file for unfinished output, which does not exist: other unfinished files are kept."""
    numbers = chain([""], map(str, count(2)))
    names = (path.with_name(f"{path.stem}.unfinished{number}{path.suffix}") for number in numbers)
    return next(name for name in names if not name.exists())


def _closing(writer: Writer) -> Iterator[Writer]:
    try:
        yield writer
    finally:
        writer.close()


def _bar(inputs: Inputs, table: TableFile) -> tqdm:
    """Return a progress bar on a terminal, for which the rows are counted first."""
    shown = sys.stderr.isatty()
    total = sum(len(batch) for batch in table.batches(inputs.columns)) if shown else None
    return tqdm(total=total, unit=" rows", disable=not shown)
