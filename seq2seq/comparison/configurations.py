"""Groups runs by configuration, over seeds."""

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

from common.errors import ConfigError
from seq2seq.comparison.classes import ClassStatistics, Confusion, class_statistics, total
from seq2seq.comparison.collection import Run, TaskScores, find_runs, read_run
from seq2seq.comparison.names import canonical, names_of
from seq2seq.comparison.numbers import Statistic
from seq2seq.comparison.tested import Tested, tested_on

OF_SWEEPS = "finished cells of sweeps are left out; python report.py --results CELLS.jsonl compares those of one"


@dataclass(frozen=True)
class Configuration:
    """Runs that differ in nothing that matters but their seed, and are tested on the same rows.

    name: unique among the configurations tested on these rows.
    family: the name without the number of training rows.
    settings: the keys in which it differs from configurations of the same experiment_name.
    runs: one run per seed.
    split: the split whose scores are compared.
    tested: the rows of that split, by task.
    """

    name: str
    family: str
    settings: str
    runs: list[Run]
    split: str
    tested: tuple[Tested, ...]

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def rows(self) -> float:
        """Number of training rows per task; infinite if all available rows were used."""
        return math.inf if self.first.low_resource is None else self.first.low_resource

    @property
    def percent(self) -> float:
        """Trainable parameters in percent of the backbone's parameters."""
        return 100 * self.first.trainable / self.first.backbone if self.first.backbone else math.nan

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The (task, metric) pairs of all scores."""
        return [(tested.task, metric) for tested in self.tested for metric in tested.metrics]

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(tested.task for tested in self.tested)

    @cached_property
    def average(self) -> Statistic:
        """Statistic of average_metrics, the mean over tasks of each task's mean metric."""
        return Statistic.of(run.splits[self.split].average for run in self.runs)

    def score(self, task: str, metric: str) -> Statistic:
        """Statistic of a metric over the runs."""
        return Statistic.of(scores.metrics[metric] for scores in self._scores(task))

    def majority(self, task: str, metric: str) -> float:
        """Score of always predicting the most frequent target; NaN if unknown."""
        known = [scores.majority for scores in self._scores(task)]
        return Statistic.of(scores[metric] for scores in known if metric in scores).mean

    def classes(self, task: str) -> dict[str, ClassStatistics]:
        """Statistics of the scores by class, the largest class first; empty if unknown."""
        return class_statistics([scores.classes for scores in self._scores(task)])

    def confusion(self, task: str) -> Confusion | None:
        """Which classes were taken for which, summed over the runs; None if unknown."""
        return total([scores.confusion for scores in self._scores(task) if scores.confusion])

    def mean_of(self, attribute: str) -> float:
        """Mean of an attribute of the runs, "seconds" or "memory_mib"."""
        return Statistic.of(getattr(run, attribute) for run in self.runs).mean

    def _scores(self, task: str) -> list[TaskScores]:
        return [run.splits[self.split].tasks[task] for run in self.runs]


def collect(paths: list[str], split: str) -> tuple[list[Configuration], list[str]]:
    """Collect the configurations with scores on `split` from the runs in and below `paths`.

    Returns the configurations and warnings about runs that were skipped or repeated.

    Raises ConfigError if a path does not exist, no run is finished, or none has scores on `split`.
    """
    found = find_runs(paths)
    runs, warnings = [], []
    for directory in found.finished:
        try:
            runs.append(read_run(directory))
        except ValueError as error:
            warnings.append(f"{error}; skipped")
    if not runs:
        counts = f"{found.unfinished} unfinished and {len(warnings)} unreadable"
        reason = f" ({warnings[0]})" if warnings else ""
        lines = "".join(f"; {line}" for line in found.diverged)
        cells = f"; {found.of_sweeps} {OF_SWEEPS}" if found.of_sweeps else ""
        raise ConfigError(f"no finished run in {', '.join(paths)}; {counts}{reason}{lines}{cells}")
    if found.unfinished:
        warnings.append(f"{found.unfinished} unfinished runs are skipped")
    warnings += found.diverged
    if found.of_sweeps:
        warnings.append(f"{found.of_sweeps} {OF_SWEEPS}")
    scored = [run for run in runs if split in run.splits]
    if not scored:
        available = sorted({name for run in runs for name in run.splits})
        raise ConfigError(f"no run has scores on --split {split!r}; available: {', '.join(available) or 'none'}")
    if len(scored) < len(runs):
        warnings.append(f"{len(runs) - len(scored)} of {len(runs)} runs have no scores on {split} and are skipped")
    configurations = group(scored, split)
    for configuration in configurations:
        repeated = [seed for seed, times in Counter(str(run.seed) for run in configuration.runs).items() if times > 1]
        if repeated:
            warnings.append(
                f"{configuration.name}: seed {', '.join(repeated)} occurs more than once; all runs are counted"
            )
    return configurations, warnings


def diverged(paths: list[str], configurations: list[Configuration]) -> list[str]:
    """Return one line about each run that diverged, whether it ended then or is one of the configurations."""
    finished = [run.divergence for configuration in configurations for run in configuration.runs]
    return find_runs(paths).diverged + sorted(line for line in finished if line)


def group(runs: list[Run], split: str) -> list[Configuration]:
    """Group runs tested on the same rows that differ only in their seed, and name them."""
    by_rows: dict[tuple[Tested, ...], list[Run]] = {}
    for run, tested in zip(runs, tested_on(runs, split), strict=True):
        by_rows.setdefault(tested, []).append(run)
    return [found for tested, members in by_rows.items() for found in named(members, split, tested)]


def named(runs: list[Run], split: str, tested: tuple[Tested, ...]) -> list[Configuration]:
    """Group and name runs that were tested on the same rows."""
    families: dict[str, dict[float | None, list[Run]]] = {}
    for run in runs:
        rest = {name: value for name, value in run.config.items() if name != "low_resource"}
        family = families.setdefault(canonical([run.name, rest]), {})
        family.setdefault(run.low_resource, []).append(run)
    names = names_of([next(iter(family.values()))[0] for family in families.values()])
    found = []
    for name, family in zip(names, families.values(), strict=True):
        for rows, members in family.items():
            size = "all rows" if rows is None else f"{rows:,} rows"
            text = f"{name.text}, {size}" if len(family) > 1 else name.text
            found.append(Configuration(text, name.text, name.settings, members, split, tested))
    return found
