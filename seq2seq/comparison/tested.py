"""What a run was tested on. Scores are compared only where all of this is the same."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seq2seq.comparison.collection import Run, TaskScores

SHORT_HASH = 8


@dataclass(frozen=True)
class Tested:
    """The rows of one task, and how they were scored.

    task: name of the task, or of the user's own data.
    metrics: sorted names.
    rows: number of rows; None if unknown.
    hash: of the rows' sources and targets; None if unknown.
    """

    task: str
    metrics: tuple[str, ...]
    rows: int | None
    hash: str | None

    @classmethod
    def of(cls, task: str, scores: TaskScores) -> "Tested":
        return cls(task, tuple(sorted(scores.metrics)), scores.rows, scores.hash)

    @property
    def order(self) -> tuple:
        """Sort key: by name, the most rows first."""
        return self.task, -(self.rows or 0), self.hash or "", self.metrics

    def described(self, others: Sequence["Tested"]) -> str:
        """The name, with the number of rows, and with what else tells it from others of the same name."""
        details = [] if self.rows is None else [f"{self.rows:,} rows"]
        same = [other for other in others if (other.task, other.rows) == (self.task, self.rows)]
        if any(other.hash != self.hash for other in same):
            details.append("hash unknown" if self.hash is None else self.hash[:SHORT_HASH])
        if any(other.metrics != self.metrics for other in same):
            details.append(" and ".join(self.metrics))
        return f"{self.task} ({', '.join(details)})" if details else self.task


def tested_on(runs: Sequence[Run], split: str) -> list[tuple[Tested, ...]]:
    """Return what each run was tested on in a split, one entry per task with metrics, sorted.

    A run that knows no hash, as those of older versions, counts as tested on the rows of a run that does, if the task
    is published and has as many rows in both, and no run has others of that number.
    """
    scored = [run.splits[split].tasks for run in runs]
    hashes: dict[tuple, set[str]] = {}
    for tasks in scored:
        for task, scores in tasks.items():
            if scores.hash is not None:
                hashes.setdefault((task, scores.published, scores.rows), set()).add(scores.hash)

    def completed(task: str, scores: TaskScores) -> Tested:
        known = hashes.get((task, True, scores.rows), set()) if scores.published else set()
        found = Tested.of(task, scores)
        adopted = found.hash is None and found.rows is not None and len(known) == 1
        return replace(found, hash=next(iter(known))) if adopted else found

    return [
        tuple(sorted((completed(*item) for item in tasks.items() if item[1].metrics), key=lambda tested: tested.order))
        for tasks in scored
    ]
