"""Results of a comparison: the errors of all fits, and the estimates, tables and figures made from them."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.checksums import damage, is_sealed, sealed
from common.errors import type_and_line
from common.files import write_file, write_json
from common.json_text import read_json
from common.tables import csv_text
from expressivity.errors import ExpressivityError
from expressivity.intervals import Interval, confidence_interval

FAMILIES = ("A", "B")
STATISTICS = {
    "min": lambda errors: _replace_diverged(errors).amin(1),
    "mean": lambda errors: _replace_diverged(errors).mean(1),
}
DIVERGED = 1.0  # the error that a diverged fit counts as, that of the best constant
FIRST_LOOK = 32  # number of targets from which intervals are used: the mean of fewer may be far from normal


@dataclass(frozen=True)
class Estimate:
    """Estimates at one size for one statistic over restarts.

    statistic: "min" or "mean".
    targets: number of targets.
    errors: mean error on fresh rows over targets, by family.
    training: mean error on the training rows, by family.
    difference: mean paired difference of the errors, A - B.
    """

    statistic: str
    targets: int
    errors: dict[str, Interval]
    training: dict[str, float]
    difference: Interval

    @property
    def winner(self) -> str:
        """The family with the smaller error, "A" or "B"; "undecided" if the interval contains zero.

        Always "undecided" for fewer than FIRST_LOOK targets.
        """
        if self.targets < FIRST_LOOK or not self.difference.excludes_zero:
            return "undecided"
        return "A" if self.difference.high < 0 else "B"


@dataclass
class SizeResult:
    """The errors of all fits at one size.

    index: index of the size.
    measures: measures of A, B and the base, if any.
    fresh: errors on fresh rows by family, (targets, restarts), relative to the variance of the target; nan for a
        diverged fit, which counts as 1, the error of the best constant.
    training: the same on the training rows.
    redrawn: number of constant targets that were rejected and drawn again.
    """

    index: int
    measures: dict[str, float]
    fresh: dict[str, torch.Tensor]
    training: dict[str, torch.Tensor]
    redrawn: int = 0

    @classmethod
    def empty(cls, index: int, measures: dict[str, float], restarts: int) -> "SizeResult":
        """The result of a size before its first target."""
        fresh, training = ({f: torch.empty(0, restarts, dtype=torch.float64) for f in FAMILIES} for _ in range(2))
        return cls(index, measures, fresh, training)

    @property
    def targets(self) -> int:
        """Number of targets so far."""
        return len(self.fresh["A"])

    @property
    def diverged(self) -> dict[str, int]:
        """Number of diverged fits by family."""
        return {family: int(self.fresh[family].isnan().sum()) for family in FAMILIES}

    def add(self, found: dict, redrawn: int) -> None:
        """Append the errors on further targets.

        found: fitting.Errors by family.
        redrawn: number of targets rejected while drawing them.
        """
        self.redrawn += redrawn
        for family, errors in found.items():
            self.fresh[family] = torch.cat([self.fresh[family], errors.fresh])
            self.training[family] = torch.cat([self.training[family], errors.training])

    def estimate(self, statistic: str, confidence: float) -> Estimate:
        """Estimate the errors and their difference from the targets so far. statistic: "min" or "mean"."""
        over_restarts = STATISTICS[statistic]
        values = {family: over_restarts(self.fresh[family]) for family in FAMILIES}
        return Estimate(
            statistic,
            self.targets,
            {family: confidence_interval(values[family], confidence) for family in FAMILIES},
            {family: over_restarts(self.training[family]).mean().item() for family in FAMILIES},
            self._difference(statistic, confidence),
        )

    def _difference(self, statistic: str, confidence: float) -> Interval:
        a, b = (STATISTICS[statistic](self.fresh[family]) for family in FAMILIES)
        return confidence_interval(a - b, confidence)

    def settled(self, confidence: float, variance_threshold: float, stop_when_decided: bool) -> bool:
        """True if, for both statistics, the interval of the difference is narrow enough or excludes zero.

        variance_threshold: the width below which an interval is narrow enough.
        stop_when_decided: False: excluding zero does not suffice.
        """
        if self.targets < FIRST_LOOK:
            return False
        differences = [self._difference(statistic, confidence) for statistic in STATISTICS]
        return all(d.width < variance_threshold or (stop_when_decided and d.excludes_zero) for d in differences)


@dataclass
class ComparisonResult:
    """The result of `ArchitectureComparator.compare`.

    names: names of the families, {"A": .., "B": .., "base": ..}.
    confidence: confidence level of all intervals.
    settings: everything that the random draws and fits depend on.
    sizes: one SizeResult per size.
    """

    names: dict[str, str]
    confidence: float
    settings: dict
    sizes: list[SizeResult] = field(default_factory=list)

    def estimates(self, statistic: str) -> list[Estimate]:
        """One Estimate per size. statistic: "min" or "mean" over restarts."""
        return [size.estimate(_checked(statistic), self.confidence) for size in self.sizes]

    def rows(self) -> list[dict]:
        """Rows of the CSV file, one per size and statistic."""
        begun = [size for size in self.sizes if size.targets]
        return [_row(size, size.estimate(s, self.confidence)) for s in STATISTICS for size in begun]

    def density(self, index: int, statistic: str = "min") -> dict[str, torch.Tensor]:
        """Sorted errors at the size `index` by family, (targets,), one per target.

        The share of targets fitted to within eps is the share of these errors that are at most eps.
        """
        over_restarts = STATISTICS[_checked(statistic)]
        return {family: over_restarts(self.sizes[index].fresh[family]).sort().values for family in FAMILIES}

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
            errors = {
                name: {f: rows.tolist() for f, rows in vars(size)[name].items()} for name in ("fresh", "training")
            }
            whole["sizes"].append({**vars(size), **errors})
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
            sizes = [
                SizeResult(**{**size, "fresh": _tensors(size["fresh"]), "training": _tensors(size["training"])})
                for size in whole["sizes"]
            ]
            return cls(dict(whole["names"]), float(whole["confidence"]), dict(whole["settings"]), sizes)
        except ExpressivityError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise ExpressivityError(f"{path} cannot be read as a comparison result: {type_and_line(error)}") from None


def _row(size: SizeResult, estimate: Estimate) -> dict:
    row = {"size": size.index, "statistic": estimate.statistic}
    row |= {f"measure_{name}": value for name, value in size.measures.items()}
    row |= {"targets": size.targets, "restarts": size.fresh["A"].shape[1]}
    intervals = {f"error_{family}": estimate.errors[family] for family in FAMILIES}
    for name, interval in {**intervals, "difference": estimate.difference}.items():
        row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    row |= {f"training_error_{family}": estimate.training[family] for family in FAMILIES}
    row |= {f"diverged_{family}": number for family, number in size.diverged.items()}
    return row | {"redrawn": size.redrawn, "winner": estimate.winner}


def _replace_diverged(errors: torch.Tensor) -> torch.Tensor:
    return errors.nan_to_num(nan=DIVERGED)


def _checked(statistic: str) -> str:
    if statistic not in STATISTICS:
        raise ExpressivityError(f"statistic is {statistic!r}; allowed: {', '.join(STATISTICS)}")
    return statistic


def _lists(errors: dict[str, torch.Tensor]) -> dict[str, list]:
    return {family: rows.tolist() for family, rows in errors.items()}


def _tensors(errors: dict[str, list]) -> dict[str, torch.Tensor]:
    numbers = {f: [[math.nan if e is None else e for e in row] for row in rows] for f, rows in errors.items()}
    return {f: torch.tensor(rows, dtype=torch.float64) for f, rows in numbers.items()}
