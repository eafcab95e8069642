"""The cells of a sweep: each is one run, recognised by what it computes and on which data."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from common.checksums import sha256_of
from common.errors import ConfigError
from seq2seq.comparison.names import word
from seq2seq.layout import CELLS, INCIDENTAL
from seq2seq.runs import DATA_FILES
from seq2seq.settings import Settings, own_defaults
from seq2seq.sweeps.baselines import BASELINES
from seq2seq.sweeps.rows import Row, RowReader, task_of
from seq2seq.sweeps.spaces import candidates
from seq2seq.sweeps.specification import Sweep

CHOOSE, REPORT = "choose", "report"
BESIDE = {*INCIDENTAL, "experiment_name", "seeds", "do_train", *DATA_FILES}  # not part of what a cell computes
KEY_LENGTH = 16


@dataclass(frozen=True)
class Cell:
    """One run.

    key: identifies it: a hash of its configuration and of the user's data files.
    row, task, seed: its place in the table.
    stage: CHOOSE for a run to choose by, REPORT for one that is reported.
    chosen: the values of the space.
    directory: where it is run.
    values: the complete configuration, as `seq2seq.settings.build` takes it.
    method: what is trained, in words.
    launch: the program that starts it in several processes; None: it is one process.
    """

    key: str
    row: Row
    task: str
    seed: int
    stage: str
    chosen: dict[str, Any]
    directory: Path
    values: dict[str, Any] = field(repr=False)
    method: str
    launch: str | None

    @property
    def place(self) -> tuple[str, str, int, str]:
        """Its place in the table; the same run may stand in several."""
        return self.row.name, self.task, self.seed, self.key

    @property
    def log(self) -> Path:
        """The file of what it prints."""
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def title(self) -> str:
        chosen = "".join(f", {word(name, value)}" for name, value in self.chosen.items())
        return f"{self.row.name}, {self.task}, seed {self.seed}{chosen if self.stage == CHOOSE else ''}"


class Table:
    """All cells of a sweep.

    rows: its rows, by name.
    tasks: the keys of each task, by its name in tables.
    warnings: what the user should know about how the files were read, one line each.
    """

    def __init__(self, sweep: Sweep):
        """Resolve the sweep. Raises ConfigError for whatever no cell could run with."""
        self.sweep = sweep
        self.tasks = dict(task_of(item, number) for number, item in enumerate(sweep.tasks, 1))
        if len(self.tasks) < len(sweep.tasks):
            raise ConfigError('two tasks have the same name in tables; give one of them a "name"')
        self._reader = RowReader(sweep, self.tasks)
        self.rows, self.warnings = self._reader.rows(), self._reader.warnings
        self._sums: dict[Path, str] = {}
        self._check_distinct()
        self.warnings += self._beyond()

    def choices(self, row: Row, task: str) -> list[Cell]:
        """Return the cells by which the values of a row are chosen for a task; [] if there is nothing to choose."""
        if not row.space:
            return []
        choice = self.sweep.choice
        seed = self.sweep.seeds[0] if choice.seed is None else choice.seed
        keys = {**(choice.keys or {}), "do_eval": True, "do_test": False}
        return [
            self._cell(row, task, seed, CHOOSE, values, keys) for values in candidates(row.space, choice.trials, seed)
        ]

    def reports(self, row: Row, task: str, chosen: dict[str, Any]) -> list[Cell]:
        """Return the reported cells of a row and a task, one a seed."""
        return [self._cell(row, task, seed, REPORT, chosen, {"do_test": True}) for seed in self.sweep.seeds]

    def counts(self) -> dict[tuple[str, str, str], int]:
        """Return the number of cells by row, task and stage."""
        found = {}
        for row, task in self.pairs():
            if row.space:
                found[row.name, task, CHOOSE] = len(self.choices(row, task))
            found[row.name, task, REPORT] = len(self.sweep.seeds)
        return found

    def pairs(self) -> Iterator[tuple[Row, str]]:
        """Yield every row with every task."""
        yield from product(self.rows.values(), self.tasks)

    def _check_distinct(self) -> None:
        """Raise ConfigError if two rows, or two tasks, stand for the same runs, which would share a directory."""
        seen: dict[str, str] = {}
        for row, task in self.pairs():
            key, title = self._cell(row, task, self.sweep.seeds[0], REPORT, {}, {}).key, f"{row.name} on {task}"
            if key in seen:
                raise ConfigError(f"{seen[key]} and {title} are the same runs; remove one of them")
            seen[key] = title

    def _beyond(self) -> list[str]:
        """Return a line about scores in `published` that are of no row, or of no task, of the sweep."""
        scores = (self.sweep.published or {}).get("scores", {})
        named = [*(name for name in scores if name not in self.rows)]
        named += dict.fromkeys(task for row in scores.values() for task in row if task not in self.tasks)
        return [f"published has scores of {', '.join(named)}, which are not in the sweep"] if named else []

    def _cell(self, row: Row, task: str, seed: int, stage: str, chosen: dict, keys: dict) -> Cell:
        own = {**chosen, **keys, "seed": seed, "experiment_name": row.name}
        place = Path(self.sweep.output_dir, CELLS, plain(row.name), plain(task))
        settings, _ = self._reader.settings(row, task, {**own, "output_dir": str(place)})
        if isinstance(settings.data.low_resource, list):
            raise ConfigError(f"{row.name}: low_resource is a list; put it into the grid of the sweep")
        key = self._key(settings, row.baseline)
        directory = place / f"{stage}_seed_{seed}_{key}"
        values = {**settings.given, "output_dir": str(directory)}
        method = BASELINES[row.baseline].title if row.baseline else settings.method
        return Cell(key, row, task, seed, stage, chosen, directory, values, method, self.sweep.launch)

    def _key(self, settings: Settings, baseline: str | None) -> str:
        """Return the hash of what a cell computes: of the values that differ from the defaults, and of its data."""
        resolved, defaults = settings.resolved(), own_defaults()
        what = {
            name: value
            for name, value in resolved.items()
            if name not in BESIDE and not (name in defaults and value == defaults[name])
        }
        files = {name: self._sum(Path(resolved[name])) for name in DATA_FILES if resolved.get(name)}
        launch = [] if self.sweep.launch is None else [self.sweep.launch]  # more processes, larger batches
        text = json.dumps([what, files, baseline, *launch], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]

    def _sum(self, path: Path) -> str:
        """Return the SHA-256 of a file, or of the names and the content of all files in a directory."""
        if not path.exists():
            raise ConfigError(f"{path} does not exist; it is named by one of the tasks or configurations")
        if path not in self._sums:
            files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
            parts = [[str(file.relative_to(path)), sha256_of(file)] for file in files]
            self._sums[path] = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self._sums[path]


def plain(text: str) -> str:
    """Return a text as the name of a directory."""
    return re.sub(r"[^A-Za-z0-9.+=-]+", "_", text).strip("_.")[:80] or "_"
