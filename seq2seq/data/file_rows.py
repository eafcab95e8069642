"""From the cells of a user's file to sources and targets."""

from collections.abc import Mapping, Sequence

import pyarrow
import pyarrow.compute as pc

from common.errors import ConfigError
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data.bad_rows import BadRows
from seq2seq.data.tables import Batch, TableFile
from seq2seq.data.tables.cells import MISSING, Reading, Texts
from seq2seq.data.targets import Labels, Reader, accepted_targets, read_targets
from seq2seq.data.template import Template, names_of


class Sources:
    """Makes the sources of a file's rows.

    columns: the columns that it reads.
    """

    def __init__(self, table: TableFile, arguments: DataTrainingArguments):
        """Raises ConfigError if the template does not fit the file."""
        self.template = Template(arguments.source_template, table, arguments.optional_columns or ())
        self.reading = Reading(missing_of(arguments), arguments.multiple)
        self.columns = self.template.fields

    def of(self, batch: Batch) -> tuple[pyarrow.Array, dict[int, str]]:
        """Return the sources of rows, null for a row without one, and what is wrong with those, by place."""
        columns, problems = {}, dict(batch.problems)
        for name in self.columns:
            texts = self.reading.texts(batch.columns[name])
            columns[name] = texts.values
            note(problems, name, texts, required=name not in self.template.optional)
        return self.template.fill(columns), problems


def of_targets(arguments: DataTrainingArguments, reader: Reader) -> Reading:
    """Return how the cells of the target column become texts: a list as its first item; a label is never missing."""
    labels = reader.labels if isinstance(reader, Labels) else ()
    missing = [text for text in missing_of(arguments) if text not in labels]
    return Reading(missing, multiple=arguments.multiple and "first")


def missing_of(arguments: DataTrainingArguments) -> Sequence[str]:
    """Return the texts that stand for a missing value."""
    return MISSING if arguments.missing_values is None else arguments.missing_values


def note(problems: dict[int, str], name: str, texts: Texts, required: bool = True) -> None:
    """Add what is wrong with the cells of a column, for rows of which nothing is known yet."""
    for place, problem in texts.problems.items():
        problems.setdefault(place, f"column {name} {problem}")
    if required and texts.values.null_count:
        for place in pc.indices_nonzero(texts.values.is_null()).to_pylist():
            word = texts.words.get(place)
            said = "is empty" if word is None else f"is {word!r}, a missing value by missing_values"
            problems.setdefault(place, f"column {name} {said}")


def read_rows(table: TableFile, arguments: DataTrainingArguments, reader: Reader) -> tuple[pyarrow.Table, list[str]]:
    """Read a file. Returns "source", "target", "row" and, with the key multiple, "accepted"; and warnings.

    reader: of the targets.
    Raises ConfigError with the rows that cannot be used, unless they are to be skipped.
    """
    sources, target = Sources(table, arguments), arguments.target_column
    if not table.has(target):
        have = names_of([name for name in table.columns if name]) + table.hint
        raise ConfigError(
            f"target_column is {target!r}, but {table.source.place} does not have it; its columns are {have}"
        )
    parts, bad, total = [], BadRows(table), 0
    reading = of_targets(arguments, reader)
    for batch in table.batches(list(dict.fromkeys([*sources.columns, target]))):
        texts, problems = sources.of(batch)
        given = reading.texts(batch.columns[target])
        note(problems, target, given)
        targets, wrong = read_targets(reader, given.values)
        for place, problem in wrong.items():
            problems.setdefault(place, f"{target} {problem}")
        numbers = pyarrow.array(range(batch.first, batch.first + len(batch)), pyarrow.int64())
        columns = {"source": texts, "target": targets, "row": numbers}
        if arguments.multiple:
            columns["accepted"] = accepted_targets(reader, targets, given.lists, problems)
        total += len(batch)
        bad.add(batch.first, problems)
        part = pyarrow.table(columns)
        parts.append(part.filter(without(problems, len(batch))) if problems else part)
    if not total:
        raise ConfigError(f"{table.source.place} holds no rows")
    skipped = bad.report(total, arguments.on_bad_rows == "skip")
    return pyarrow.concat_tables(parts), [*table.source.notes, *skipped]


def without(problems: Mapping[int, str], count: int) -> pyarrow.Array:
    """Return a mask of the rows that have no problem."""
    return pyarrow.array([place not in problems for place in range(count)])
