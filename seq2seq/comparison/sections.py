"""Sections of a report: the configurations that were tested on the same rows, which alone can be compared."""

import math
from dataclasses import dataclass
from functools import cached_property

from seq2seq.comparison.configurations import Configuration
from seq2seq.comparison.numbers import rank

AVERAGE = "average"


@dataclass(frozen=True)
class Section:
    """Configurations with scores on the same rows of the same tasks, best first, grouped by family.

    title: what they were tested on, different for each section.
    """

    title: str
    configurations: list[Configuration]

    @property
    def tasks(self) -> tuple[str, ...]:
        return self.configurations[0].tasks

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The (task, metric) pairs of all scores."""
        return self.configurations[0].columns

    @cached_property
    def families(self) -> list[list[Configuration]]:
        """Configurations by family, which differ only in the number of training rows; most rows first."""
        families: dict[str, list[Configuration]] = {}
        for configuration in self.configurations:
            families.setdefault(configuration.family, []).append(configuration)
        return list(families.values())

    @property
    def labels(self) -> list[str]:
        """The name of each family."""
        return [family[0].family for family in self.families]

    @property
    def best(self) -> Configuration:
        """The configuration with the highest average."""
        return min(self.configurations, key=lambda c: rank(c.average.mean))

    def majority(self, task: str, metric: str) -> float:
        """Score of always predicting the most frequent target; NaN if no run reports it."""
        known = [c.majority(task, metric) for c in self.configurations]
        return next((value for value in known if not math.isnan(value)), math.nan)


def sections(configurations: list[Configuration]) -> list[Section]:
    """Split configurations into sections by the rows that they were tested on, as other scores are not comparable."""
    by_rows: dict[tuple, list[Configuration]] = {}
    for configuration in configurations:
        by_rows.setdefault(configuration.tested, []).append(configuration)
    every = {tested for key in by_rows for tested in key}
    ordered = []
    for key, members in sorted(by_rows.items(), key=lambda item: [tested.order for tested in item[0]]):
        families: dict[str, list[Configuration]] = {}
        for configuration in sorted(members, key=lambda c: -c.rows):
            families.setdefault(configuration.family, []).append(configuration)
        best_first = sorted(families.values(), key=lambda family: rank(family[0].average.mean))
        title = ", ".join(tested.described(every) for tested in key)
        ordered.append(Section(title, [configuration for family in best_first for configuration in family]))
    return ordered


def table_rows(section: Section) -> list[dict]:
    """One row per configuration, task and metric, and one for the average if there are several tasks."""
    rows = []
    data = ", ".join(section.tasks)
    for configuration in section.configurations:
        scores = [
            (tested.task, tested.rows, tested.hash, metric, configuration.score(tested.task, metric))
            for tested in configuration.tested
            for metric in tested.metrics
        ]
        majorities = [configuration.majority(*column) for column in section.columns]
        if len(section.tasks) > 1:
            scores.append((AVERAGE, None, None, "average_metrics", configuration.average))
            majorities.append(math.nan)
        for (task, count, hashed, metric, score), majority in zip(scores, majorities, strict=True):
            rows.append(
                {
                    "data_set": data,
                    "experiment": configuration.first.name,
                    "configuration": configuration.name,
                    "settings": configuration.settings,
                    "method": configuration.first.method,
                    "task": task,
                    "rows": count,
                    "data_hash": hashed,
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
