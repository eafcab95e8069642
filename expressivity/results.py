"""Results of a comparison: the errors of all fits, and the tables and figures made from them."""

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from common.checksums import damage, is_sealed, sealed
from common.errors import type_and_line
from common.files import write_file, write_json
from common.json_text import read_json
from common.tables import csv_text
from expressivity.errors import ExpressivityError
from expressivity.intervals import Interval
from expressivity.polishing import RESTARTS
from expressivity.search import Found, Trial
from expressivity.verdict import FAMILIES, FIRST_LOOK, KINDS, OTHER, STATISTICS, WORST, Estimate, estimated


@dataclass
class SizeResult:
    """The errors of all fits at one size.

    index: index of the size.
    measures: measures of A, B and the base, if any.
    errors: by kind and family, (targets, restarts), relative to the best constant; nan for a diverged fit. Kinds:
        fresh: on fresh rows.
        training: on the training rows.
        half: on fresh rows, after fits with half the steps; of the first targets only.
        polished: on fresh rows, after another optimiser went on with the first fits to the first targets; nan where it
            could not; of a family that would lose only.
        floor: on fresh rows, of fits to members of the family itself; of the first targets only.
        optimum: (targets, 1), of the best member of the family for the rows of the fit, where there is a closed form.
    found: by family, the learning rate and the search for it; empty before the search.
    redrawn: number of constant targets that were rejected and drawn again.
    """

    index: int
    measures: dict[str, float]
    errors: dict[str, dict[str, torch.Tensor]]
    found: dict[str, Found] = field(default_factory=dict)
    redrawn: int = 0

    @classmethod
    def empty(cls, index: int, measures: dict[str, float], restarts: int) -> "SizeResult":
        """The result of a size before its first target."""
        widths = _widths(restarts)
        errors = {k: {f: torch.empty(0, widths[k], dtype=torch.float64) for f in FAMILIES} for k in KINDS}
        return cls(index, measures, errors)

    @property
    def fresh(self) -> dict[str, torch.Tensor]:
        """Errors on fresh rows, by family."""
        return self.errors["fresh"]

    @property
    def training(self) -> dict[str, torch.Tensor]:
        """Errors on the training rows, by family."""
        return self.errors["training"]

    @property
    def targets(self) -> int:
        """Number of targets so far."""
        return len(self.fresh["A"])

    @property
    def diverged(self) -> dict[str, int]:
        """Number of diverged fits by family."""
        return {family: int(self.fresh[family].isnan().sum()) for family in FAMILIES}

    @property
    def bounded(self) -> dict[str, float]:
        """Share of the fits that count as 1, by family: diverged, or worse than the best constant."""
        return {f: (~(self.fresh[f] <= WORST)).double().mean().item() for f in FAMILIES}

    def add(self, found: dict[str, dict[str, torch.Tensor]], redrawn: int = 0) -> None:
        """Append the errors on further targets.

        found: errors by kind and family.
        redrawn: number of targets rejected while drawing them.
        """
        self.redrawn += redrawn
        for kind, errors in found.items():
            for family, each in errors.items():
                self.errors[kind][family] = torch.cat([self.errors[kind][family], each])

    def estimate(self, statistic: str, confidence: float) -> Estimate:
        """Estimate the errors and their difference from the targets so far. statistic: "min" or "mean"."""
        gains = {family: self.found[family].gain if self.found else 0.0 for family in FAMILIES}
        return estimated(statistic, confidence, self.errors, gains, mutual="base" not in self.measures)

    def unpolished_losers(self, confidence: float) -> list[str]:
        """The families that would lose by either statistic, but whose fits no other optimiser has gone on with."""
        winners = [self.estimate(statistic, confidence).winner for statistic in STATISTICS] if self.targets else []
        losers = {OTHER[winner] for winner in winners if winner in OTHER}
        return sorted(family for family in losers if not len(self.errors["polished"][family]))

    def settled(self, confidence: float, variance_threshold: float, stop_when_decided: bool) -> bool:
        """True if, for both statistics, the interval of the difference is narrow enough or there is a verdict.

        variance_threshold: the width below which an interval is narrow enough.
        stop_when_decided: False: a verdict does not suffice.
        """
        if self.targets < FIRST_LOOK:
            return False
        estimates = [self.estimate(statistic, confidence) for statistic in STATISTICS]
        return all(e.difference.width < variance_threshold or (stop_when_decided and e.final) for e in estimates)


@dataclass
class ComparisonResult:
    """The result of `ArchitectureComparator.compare`.

    names: names of the families, {"A": .., "B": .., "base": ..}.
    confidence: confidence level of all intervals.
    settings: everything that the random draws and fits depend on.
    sizes: one SizeResult per size.

    It unpacks into four lists of mean errors by size: minimum over restarts and mean over restarts of A, then of B.
    """

    names: dict[str, str]
    confidence: float
    settings: dict
    sizes: list[SizeResult] = field(default_factory=list)

    def __iter__(self) -> Iterator[list[float]]:
        for family in FAMILIES:
            for statistic in STATISTICS:
                yield [estimate.errors[family].mean for estimate in self.estimates(statistic)]

    @property
    def unit(self) -> str:
        """What the measures count: bits, trainable parameters, or something of the user's own."""
        return self.settings.get("unit", "measure")

    def estimates(self, statistic: str) -> list[Estimate]:
        """One Estimate per size. statistic: "min" or "mean" over restarts."""
        return [size.estimate(_checked(statistic), self.confidence) for size in self.sizes]

    def rows(self) -> list[dict]:
        """Rows of the CSV file, one per size and statistic."""
        begun = [size for size in self.sizes if size.targets]
        return [self._row(size, size.estimate(s, self.confidence)) for s in STATISTICS for size in begun]

    def advice(self) -> list[str]:
        """What to change at each size that is underfitted, one line each."""
        found = []
        for size in self.sizes:
            given = {size.estimate(s, self.confidence).advice(self.names): s for s in STATISTICS if size.targets}
            found += [f"size {size.index}, {s}: underfitted; {advice}" for advice, s in given.items() if advice]
        return found

    def density(self, index: int, statistic: str = "min") -> dict[str, torch.Tensor]:
        """Sorted errors at the size `index` by family, (targets,), one per target; those above 1 as they are.

        The share of targets fitted to within eps is the share of these errors that are at most eps.
        """
        over_restarts = {"min": torch.amin, "mean": torch.mean}[_checked(statistic)]
        fresh = {family: errors.nan_to_num(nan=WORST) for family, errors in self.sizes[index].fresh.items()}
        return {family: over_restarts(errors, dim=1).sort().values for family, errors in fresh.items()}

    def share_within(self, eps: float, index: int, statistic: str = "min") -> dict[str, float]:
        """Share of the targets at the size `index` that each family fits to within the relative error eps."""
        return {family: (e <= eps).double().mean().item() for family, e in self.density(index, statistic).items()}

    def plot(self, statistic: str, path: str | os.PathLike | None = None):
        """Plot errors by size. Returns the matplotlib figure, and writes it to `path` if given."""
        from expressivity.plots import errors_by_size

        return errors_by_size(self, _checked(statistic), path)

    def plot_density(self, path: str | os.PathLike | None = None, statistic: str = "min"):
        """Plot shares of targets within eps. Returns the matplotlib figure, and writes it to `path` if given."""
        from expressivity.plots import densities

        return densities(self, _checked(statistic), path)

    def to_csv(self, path: str | os.PathLike) -> None:
        """Write the `rows`."""
        write_file(path, csv_text(self.rows()))

    def to_json(self, path: str | os.PathLike) -> None:
        """Write everything, including the errors of all fits, in the form that `from_json` reads."""
        whole = {"names": self.names, "confidence": self.confidence, "settings": self.settings, "sizes": []}
        for size in self.sizes:
            errors = {kind: {f: rows.tolist() for f, rows in each.items()} for kind, each in size.errors.items()}
            found = {family: asdict(each) for family, each in size.found.items()}
            whole["sizes"].append({**vars(size), "errors": errors, "found": found})
        whole["estimates"] = self.rows()
        write_json(path, sealed(whole, {}))

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> "ComparisonResult":
        """Read a file written by `to_json`. Raises ExpressivityError if it cannot be read, or was changed since."""
        try:
            whole = read_json(path)
            fault = damage(whole, Path(path).parent, Path(path).name) if is_sealed(whole) else None
            if fault is not None:
                raise ExpressivityError(f"{path} cannot be used: {fault}; delete it to start over")
            settings = dict(whole["settings"])
            sizes = [_read_size(size, settings["sub_iterations"]) for size in whole["sizes"]]
            return cls(dict(whole["names"]), float(whole["confidence"]), settings, sizes)
        except ExpressivityError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise ExpressivityError(f"{path} cannot be read as a comparison result: {type_and_line(error)}") from None

    def _row(self, size: SizeResult, estimate: Estimate) -> dict:
        row = {"size": size.index, "statistic": estimate.statistic}
        row |= {f"measure_{name}": value for name, value in size.measures.items()}
        row |= {"targets": size.targets, "restarts": size.fresh["A"].shape[1]}
        row |= {f"lr_{family}": size.found[family].lr if size.found else None for family in FAMILIES}
        intervals: dict[str, Interval] = {f"error_{family}": estimate.errors[family] for family in FAMILIES}
        intervals |= {"difference": estimate.difference}
        intervals |= {f"floor_{family}": estimate.floors[family] for family in FAMILIES}
        for name, interval in intervals.items():
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        for family in FAMILIES:
            movement, optimum, polish = (of[family] for of in (estimate.movements, estimate.optima, estimate.polishes))
            row |= {f"half_budget_{family}": None if movement is None else estimate.errors[family].mean + movement.mean}
            row |= {f"gain_of_polish_{family}": None if polish is None else polish.mean}
            row |= {f"gain_of_lr_{family}": estimate.gains[family], f"slack_{family}": estimate.slack(family)}
            row |= {f"optimum_{family}": optimum}
            row |= {f"gap_{family}": None if optimum is None else estimate.errors[family].mean - optimum}
            row |= {f"training_error_{family}": estimate.training[family]}
            row |= {f"share_at_1_{family}": size.bounded[family], f"diverged_{family}": size.diverged[family]}
        return row | {"redrawn": size.redrawn, "winner": estimate.winner}


def _read_size(given: dict, restarts: int) -> SizeResult:
    if not set(KINDS) <= set(given.get("errors", ())):
        raise ValueError("it is of an earlier version, with fewer kinds of errors; delete it to start over")
    errors = {kind: _tensors(given["errors"][kind], width) for kind, width in _widths(restarts).items()}
    found = {
        family: Found(**{**each, "trials": tuple(Trial(**trial) for trial in each["trials"])})
        for family, each in given["found"].items()
    }
    return SizeResult(**{**given, "errors": errors, "found": found})


def _widths(restarts: int) -> dict[str, int]:
    """Number of fits to a target, by kind of error."""
    return {**dict.fromkeys(KINDS, restarts), "optimum": 1, "polished": min(RESTARTS, restarts)}


def _checked(statistic: str) -> str:
    if statistic not in STATISTICS:
        raise ExpressivityError(f"statistic is {statistic!r}; allowed: {', '.join(STATISTICS)}")
    return statistic


def _tensors(errors: dict[str, list], width: int) -> dict[str, torch.Tensor]:
    numbers = {f: [[math.nan if e is None else e for e in row] for row in rows] for f, rows in errors.items()}
    return {f: torch.tensor(rows, dtype=torch.float64).view(len(rows), width) for f, rows in numbers.items()}
