"""Sources, and targets where there are any, of the rows of a file, for predictions."""

from collections.abc import Mapping
from typing import Any, Protocol

import pyarrow

from common.errors import ConfigError
from seq2seq.data.file_rows import Sources, note, of_targets
from seq2seq.data.layouts.nested import from_json
from seq2seq.data.own_file import FileTask
from seq2seq.data.published import Published
from seq2seq.data.tables import Batch, TableFile
from seq2seq.data.tables.cells import Reading
from seq2seq.data.targets import accepted_targets, read_targets
from seq2seq.data.tasks import Task
from seq2seq.data.template import names_of


class Inputs(Protocol):
    """Makes sources and targets of the rows of a file.

    columns: the columns that it reads.
    """

    columns: list[str]

    def sources(self, batch: Batch) -> tuple[list[str | None], dict[int, str]]:
        """Return the sources of rows, null for a row without one, and what is wrong with those, by place."""

    def targets(self, batch: Batch) -> list[dict[str, Any] | None] | None:
        """Return what answers are scored against, "target" and the task's reference fields, of each row.

        Null for a row without a target; null in all if the file has none.
        """


class OfTemplate:
    """Rows of the user's own data."""

    def __init__(self, table: TableFile, task: FileTask):
        self.texts, self.target, self.reader = Sources(table, task.arguments), None, task.reader("train_file")
        self.reading = of_targets(task.arguments, self.reader)
        if table.has(task.arguments.target_column):
            self.target = task.arguments.target_column
        self.columns = [*dict.fromkeys([*self.texts.columns, *filter(None, [self.target])])]

    def sources(self, batch: Batch) -> tuple[list[str | None], dict[int, str]]:
        sources, problems = self.texts.of(batch)
        return sources.to_pylist(), problems

    def targets(self, batch: Batch) -> list[dict[str, Any] | None] | None:
        if self.target is None:
            return None
        given, problems = self.reading.texts(batch.columns[self.target]), {}
        targets, _ = read_targets(self.reader, given.values)
        accepted = accepted_targets(self.reader, targets, given.lists, problems).to_pylist()
        return [
            None if target is None or place in problems else {"target": target, "accepted": accepted[place]}
            for place, target in enumerate(targets.to_pylist())
        ]


class OfTask:
    """Rows with the columns of another task. If they have its answers, too, these are read as targets."""

    def __init__(self, table: TableFile, task: Task):
        needed = task.source_columns
        missing = [name for name in needed if not table.has(name)]
        if missing or not needed:
            why = (
                f"has no column {', '.join(missing)}, which {task.name} needs" if missing else f"is not for {task.name}"
            )
            have = names_of([name for name in table.columns if name])
            raise ConfigError(f"{table.source.place} {why}; its columns are {have}{table.hint}")
        self.task, self.nested = task, task.nested if isinstance(task, Published) else {}
        answers = [task.answer_field, *task.reference_fields] if isinstance(task, Published) else []
        self.answers = list(dict.fromkeys(answers)) if answers and all(map(table.has, answers)) else []
        self.needed, self.columns = needed, list(dict.fromkeys([*needed, *self.answers]))

    def sources(self, batch: Batch) -> tuple[list[str | None], dict[int, str]]:
        columns: dict[str, list[Any]] = {}
        problems: dict[int, str] = dict(batch.problems)
        for name in self.needed:
            if name in self.nested:
                columns[name] = [
                    self._kept(name, cell, place, problems) for place, cell in enumerate(_values(batch.columns[name]))
                ]
            else:
                texts = Reading().texts(batch.columns[name])
                note(problems, name, texts)
                columns[name] = texts.values.to_pylist()
        rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
        return [self._source(row, place, problems) for place, row in enumerate(rows)], problems

    def targets(self, batch: Batch) -> list[dict[str, Any] | None] | None:
        if not self.answers:
            return None
        columns = {name: _values(batch.columns[name]) for name in self.answers}
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        return [self._references(row) for row in rows]

    def _references(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """Return what a row's answer is scored against; null if the row has no label, or none that the task knows."""
        task, problems = self.task, {}
        for name in self.nested.keys() & row.keys():
            row[name] = self._kept(name, row[name], 0, problems)
        try:
            answer = None if problems else task.read_answer(row[task.answer_field], "")
        except ConfigError:
            return None
        if answer is None:
            return None
        row[task.answer_field] = answer
        target = answer[0] if isinstance(answer, list) else task.target(row)
        return {"target": target, **{name: row[name] for name in task.reference_fields}}

    def _kept(self, name: str, cell: Any, place: int, problems: dict[int, str]) -> Any:
        keep, example = self.nested[name]
        try:
            return keep(from_json(cell, "FILE", name))
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


def _values(cells: Any) -> list[Any]:
    """Return the cells of a column as Python's values."""
    return cells.to_pylist() if isinstance(cells, pyarrow.Array) else list(cells)


def inputs_of(table: TableFile, task: Task) -> Inputs:
    """Return what makes sources of a file's rows. Raises ConfigError if the file lacks a column that the task needs."""
    return OfTemplate(table, task) if isinstance(task, FileTask) else OfTask(table, task)
