"""Groups runs by configuration, over seeds, and makes the rows of the table."""

import json
import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy

from common.errors import ConfigError
from seq2seq.comparison.collection import Run, find_runs, printable, read_run

AVERAGE = "average"


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation of `count` values; the deviation of a single value is NaN."""

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Statistic":
        values = numpy.array(list(values), dtype=float)
        with numpy.errstate(invalid="ignore"):
            deviation = values.std(ddof=1) if len(values) > 1 else math.nan
            return cls(float(values.mean()) if len(values) else math.nan, float(deviation), len(values))


@dataclass(frozen=True)
class Configuration:
    """Runs that differ only in their seed.

    name: unique name.
    family: the name without the number of training rows.
    runs: one run per seed.
    split: the split whose scores are compared.
    """

    name: str
    family: str
    runs: list[Run]
    split: str

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

    @cached_property
    def columns(self) -> list[tuple[str, str]]:
        """The (task, metric) pairs of all scores."""
        tasks = [item for run in self.runs for item in run.splits[self.split].tasks.items()]
        return sorted({(task, metric) for task, scores in tasks for metric in scores.metrics})

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(task for task, _ in self.columns))

    @cached_property
    def average(self) -> Statistic:
        """Statistic of average_metrics, the mean over tasks of each task's mean metric."""
        return Statistic.of(run.splits[self.split].average for run in self.runs)

    def score(self, task: str, metric: str) -> Statistic:
        """Statistic of a metric over the runs."""
        return Statistic.of(self._values("metrics", task, metric))

    def majority(self, task: str, metric: str) -> float:
        """Score of always predicting the most frequent target; NaN if unknown."""
        return Statistic.of(self._values("majority", task, metric)).mean

    def mean_of(self, attribute: str) -> float:
        """Mean of an attribute of the runs, "seconds" or "memory_mib"."""
        return Statistic.of(getattr(run, attribute) for run in self.runs).mean

    def _values(self, kind: str, task: str, metric: str) -> list[float]:
        entries = [run.splits[self.split].tasks.get(task) for run in self.runs]
        return [getattr(entry, kind)[metric] for entry in entries if entry and metric in getattr(entry, kind)]


@dataclass(frozen=True)
class Section:
    """Configurations with scores on the same tasks, best first, grouped by family."""

    configurations: list[Configuration]

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.configurations[0].tasks

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The (task, metric) pairs of all scores."""
        return sorted({pair for configuration in self.configurations for pair in configuration.columns})

    @property
    def families(self) -> list[list[Configuration]]:
        """Configurations by family, which differ only in the number of training rows; most rows first."""
        families = {}
        for configuration in self.configurations:
            families.setdefault(configuration.family, []).append(configuration)
        return list(families.values())

    @property
    def labels(self) -> list[str]:
        """A label per family; only the keys in which they differ if all have the same experiment_name."""
        names = [family[0].family for family in self.families]
        name = self.configurations[0].first.name
        if len(names) > 1 and all(other.startswith(f"{name} (") for other in names):
            return [other[len(name) + 2 : -1] for other in names]
        return names

    def majority(self, task: str, metric: str) -> float:
        """Score of always predicting the most frequent target; NaN if no run reports it."""
        known = [c.majority(task, metric) for c in self.configurations]
        return next((value for value in known if not math.isnan(value)), math.nan)


def sections(configurations: list[Configuration]) -> list[Section]:
    """Split configurations into sections by task, since scores on different tasks are not comparable."""
    by_tasks = {}
    for configuration in configurations:
        by_tasks.setdefault(tuple(sorted(configuration.tasks)), []).append(configuration)
    ordered = []
    for _, members in sorted(by_tasks.items()):
        families = {}
        for configuration in sorted(members, key=lambda c: -c.rows):
            families.setdefault(configuration.family, []).append(configuration)
        best_first = sorted(families.values(), key=lambda family: rank(family[0].average.mean))
        ordered.append(Section([configuration for family in best_first for configuration in family]))
    return ordered


def rank(score: float) -> float:
    """Sort key that puts the highest score first and NaN last."""
    return math.inf if math.isnan(score) else -score


def table_rows(configurations: list[Configuration]) -> list[dict]:
    """One row per configuration, task and metric, and one for the average if there are several tasks."""
    rows = []
    for configuration in configurations:
        scores = [(*pair, configuration.score(*pair), configuration.majority(*pair)) for pair in configuration.columns]
        if len(configuration.tasks) > 1:
            scores.append((AVERAGE, "average_metrics", configuration.average, math.nan))
        for task, metric, score, majority in scores:
            rows.append(
                {
                    "configuration": configuration.name,
                    "method": configuration.first.method,
                    "task": task,
                    "metric": metric,
                    "mean": score.mean,
                    "standard_deviation": score.deviation if score.count > 1 else None,
                    "seeds": score.count,
                    "trainable_parameters": configuration.first.trainable,
                    "percent_of_backbone": configuration.percent,
                    "seconds": configuration.mean_of("seconds"),
                    "memory_mib": configuration.mean_of("memory_mib"),
                    "low_resource": configuration.first.low_resource,
                    "majority": None if math.isnan(majority) else majority,
                }
            )
    return rows


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
        raise ConfigError(f"no finished run in {', '.join(paths)}; {counts}{reason}{lines}")
    if found.unfinished:
        warnings.append(f"{found.unfinished} unfinished runs are skipped")
    warnings += found.diverged
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
    """Group runs that differ only in their seed; configurations of the same name get the keys that differ appended."""
    groups = {}
    for run in runs:
        groups.setdefault(canonical(run.config), []).append(run)
    named = {}
    for members in groups.values():
        named.setdefault(members[0].name, []).append(members)
    return [
        Configuration(
            with_keys(name, members[0], keys), with_keys(name, members[0], keys - {"low_resource"}), members, split
        )
        for name, same in named.items()
        for keys in [differing_keys([members[0].config for members in same])]
        for members in same
    ]


def differing_keys(configs: list[dict]) -> set[str]:
    """Keys whose value is not the same in all configurations."""
    return {key for key in set().union(*configs) if len({shown_value(config, key) for config in configs}) > 1}


def with_keys(name: str, run: Run, keys: set[str]) -> str:
    """`name` followed by the run's values of `keys` in parentheses."""
    values = [f"{key}={shown_value(run.config, key)}" for key in sorted(keys)]
    return printable(f"{name} ({', '.join(values)})" if values else name)


def shown_value(config: dict, key: str) -> str:
    if key not in config:
        return "unset"
    return config[key] if isinstance(config[key], str) else canonical(config[key])


def canonical(value) -> str:
    return json.dumps(value, sort_keys=True)
