"""Averages of measures over random members of two families, on the same inputs, at each size."""

import warnings
from pathlib import Path

import torch

from common.files import write_file
from common.tables import csv_text
from expressivity.errors import ExpressivityError
from expressivity.intervals import Interval, confidence_interval
from expressivity.measures import MEASURES, Probe, make_probe, modes_of, proven_separation_rank
from expressivity.randomness import seeded
from expressivity.spaces import ArchitecturalSpace
from expressivity.targets import typical_member
from expressivity.verdict import FAMILIES


def measure_families(
    spaces: dict[str, ArchitecturalSpace], law, names: list[str], networks: int, seed: int, confidence: float
) -> list[dict]:
    """One row for each size and measure: its mean in both families, the mean difference, and their intervals.

    spaces: the families "A" and "B"; others are not measured.
    law: distribution of the inputs.
    names: keys of MEASURES.
    networks: number of random members of each family. Those with the same number start from the same seed and see the
        same inputs, so that families which differ only in their activations have the same weights: their values are
        paired.
    seed: seed of all draws.
    confidence: confidence level of the intervals.

    Of separation ranks, a row has the proven bound of each family as well, if it is of single plain trains, and the
    largest rank that the grid allows. Where a measure does not apply the row has None, and a warning says why.
    """
    pair = [spaces[family] for family in FAMILIES]
    count = max(space.count or 1 for space in pair)
    rows, said = [], set()
    for index in range(count):
        drawn = [_members(pair, index, (seed, index, number)) for number in range(networks)]
        modes = modes_of(drawn[0], pair[0].input_size)
        probes = [make_probe(pair[0], index, law, modes, (seed, index, number)) for number in range(networks)]
        for name in names:
            values = {}
            for k, family in enumerate(FAMILIES):
                members = [each[k] for each in drawn]
                values[family] = _values(name, pair[k], index, members, probes, said)
            row = {"size": index, "statistic": name, "networks": networks}
            row |= {f"measure_{family}": space.measured(index) for family, space in zip(FAMILIES, pair, strict=True)}
            row |= _estimates(values, confidence)
            ranked = name == "separation_rank"
            for k, family in enumerate(FAMILIES):
                row[f"bound_{family}"] = proven_separation_rank(drawn[0][k], probes[0]) if ranked else None
            rows.append(row | {"largest": probes[0].largest_rank if ranked else None})
    return rows


def write_measures(rows: list[dict], path: Path) -> None:
    """Write the rows as CSV."""
    write_file(path, csv_text(rows))


def measures_table(rows: list[dict], names: dict[str, str]) -> list[dict]:
    """The rows as printed on the terminal. names: the names of the families."""
    printed = []
    for row in rows:
        shown = {"size": row["size"], "statistic": row["statistic"]}
        shown |= {f"measure {family}": f"{row[f'measure_{family}']:g}" for family in FAMILIES}
        shown |= {f"{family}: {names[family]}": _shown(row, f"value_{family}") for family in FAMILIES}
        bounds = ["-" if row[name] is None else str(row[name]) for name in ("bound_A", "bound_B", "largest")]
        shown["A - B"] = _shown(row, "difference")
        printed.append(shown | {"proven bound A, B": ", ".join(bounds[:2]), "largest": bounds[2]})
    return printed


def _members(pair: list[ArchitecturalSpace], index: int, key: tuple) -> list[torch.nn.Module]:
    """One network of each family, drawn from the same seed."""
    members = []
    for space in pair:
        with seeded("measured", *key):
            members.append(typical_member(space, index, *key).eval())
    return members


def _values(name: str, space: ArchitecturalSpace, index: int, members, probes: list[Probe], said: set):
    """The measure of each member, (networks,); None, with a warning once for each reason, if it does not apply."""
    try:
        found = [MEASURES[name](space, index, *each) for each in zip(members, probes, strict=True)]
    except ExpressivityError as error:
        where = space.where(index)
        reason = f"{name} does not apply to space {space.name!r}: {str(error).removeprefix(f'{where}: ')}"
        if reason not in said:
            said.add(reason)
            warnings.warn(reason, stacklevel=3)
        return None
    return torch.tensor(found, dtype=torch.float64)


def _estimates(values: dict, confidence: float) -> dict:
    """Means and intervals of the families and of their paired difference, as cells of a row."""
    a, b = (values[family] for family in FAMILIES)
    cells = {}
    paired = {f"value_{family}": values[family] for family in FAMILIES}
    paired["difference"] = None if a is None or b is None else a - b
    for name, each in paired.items():
        interval = Interval(None, None, None) if each is None else confidence_interval(each, confidence)
        cells |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    return cells


def _shown(row: dict, name: str) -> str:
    if row[name] is None:
        return "does not apply"
    return f"{row[name]:.4g} [{row[f'{name}_low']:.4g}, {row[f'{name}_high']:.4g}]"
