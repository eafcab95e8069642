"""Sources, and targets where there are any, of the rows of a file, for predictions."""

from collections.abc import Mapping
from typing import Any, Protocol

from common.errors import ConfigError
from seq2seq.data.file_rows import Sources, note, of_targets
from seq2seq.data.own_file import FileTask
from seq2seq.data.published import Published
from seq2seq.data.tables import Batch, TableFile
from seq2seq.data.tables.cells import Reading
from seq2seq.data.targets import Labels, read_targets
from seq2seq.data.tasks import Task
from seq2seq.data.template import names_of


class Inputs(Protocol):
    """Makes sources and targets of the rows of a file.

    columns: the columns that it reads.
    """

    columns: list[str]

    def sources(self, batch: Batch) -> tuple[list[str | None], dict[int, str]]:
        """Return the sources of rows, null for a row without one, and what is wrong with those, by place."""

    def targets(self, batch: Batch) -> list[str | None] | None:
        """Return the targets of rows, null for a row without one; null if the file has none."""


class OfTemplate:
    """Rows of the user's own data."""

    def __init__(self, table: TableFile, task: FileTask):
        self.texts, self.target, self.reader = Sources(table, task.arguments), None, task.reader("train_file")
        self.reading = of_targets(task.arguments, self.reader)
        if task.arguments.target_column in table.columns:
            self.target = task.arguments.target_column
        self.columns = [*dict.fromkeys([*self.texts.columns, *filter(None, [self.target])])]

    def sources(self, batch: Batch) -> tuple[list[str | None], dict[int, str]]:
        sources, problems = self.texts.of(batch)
        return sources.to_pylist(), problems

    def targets(self, batch: Batch) -> list[str | None] | None:
        if self.target is None:
            return None
        return read_targets(self.reader, self.reading.texts(batch.columns[self.target]).values)[0].to_pylist()


class OfTask:
    """Rows with the columns of another task; of its labels, those in a column "label" are read as targets."""

    def __init__(self, table: TableFile, task: Task):
        needed = task.source_columns
        missing = [name for name in needed if name not in table.columns]
        if missing or not needed:
            why = (
                f"has no column {', '.join(missing)}, which {task.name} needs" if missing else f"is not for {task.name}"
            )
            have = names_of([name for name in table.columns if name])
            raise ConfigError(f"{table.source.place} {why}; its columns are {have}{table.hint}")
        self.task, self.nested = task, task.nested if isinstance(task, Published) else {}
        self.labelled = task.targets is not None and "label" in table.columns
        self.needed, self.columns = needed, [*needed, *["label"][: self.labelled]]

    def sources(self, batch: Batch) -> tuple[list[str | None], dict[int, str]]:
        columns: dict[str, list[Any]] = {}
        problems: dict[int, str] = dict(batch.problems)
        for name in self.needed:
            if name in self.nested:
                columns[name] = [
                    self._kept(name, cell, place, problems) for place, cell in enumerate(batch.columns[name])
                ]
            else:
                texts = Reading().texts(batch.columns[name])
                note(problems, name, texts)
                columns[name] = texts.values.to_pylist()
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return [self._source(row, place, problems) for place, row in enumerate(rows)], problems

    def targets(self, batch: Batch) -> list[str | None] | None:
        if not self.labelled:
            return None
        task = self.task
        known = dict(zip(task.labels, task.targets, strict=True)) | {target: target for target in task.targets}
        found, _ = read_targets(Labels(list(known)), Reading().texts(batch.columns["label"]).values)
        return [known.get(label) for label in found.to_pylist()]

    def _kept(self, name: str, cell: Any, place: int, problems: dict[int, str]) -> Any:
        keep, example = self.nested[name]
        try:
            return keep(cell.as_py() if hasattr(cell, "as_py") else cell)
        except (ValueError, TypeError, KeyError):
            problems.setdefault(place, f"column {name} must be like {example}")
            return None

    def _source(self, row: Mapping[str, Any], place: int, problems: dict[int, str]) -> str | None:
        if place in problems:
            return None
        try:
            return self.task.source(row)
        except ConfigError as error:
            problems[place] = str(error)
            return None


def inputs_of(table: TableFile, task: Task) -> Inputs:
    """Return what makes sources of a file's rows. Raises ConfigError if the file lacks a column that the task needs."""
    return OfTemplate(table, task) if isinstance(task, FileTask) else OfTask(table, task)
