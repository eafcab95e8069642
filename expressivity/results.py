"""What a comparison found: the errors of all fits, and what follows from them."""

import csv
import io
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch

from common.files import write_file
from expressivity.errors import ExpressivityError
from expressivity.intervals import Interval, confidence_interval

FAMILIES = ("A", "B")
STATISTICS = {"min": lambda errors: _counted(errors).amin(1), "mean": lambda errors: _counted(errors).mean(1)}
DIVERGED = 1.0  # the error that a fit without end counts with: that of the best constant
FIRST_LOOK = 32  # targets before the intervals are looked at: the mean of fewer may be far from normal


@dataclass(frozen=True)
class Estimate:
    """One size, by one statistic over the restarts: errors averaged over targets, and their paired difference A - B."""

    statistic: str
    targets: int
    errors: dict[str, Interval]
    training: dict[str, float]
    difference: Interval

    @property
    def winner(self) -> str:
        """The family with the smaller error, "A" or "B", or "undecided"; so always below FIRST_LOOK targets."""
        if self.targets < FIRST_LOOK or not self.difference.excludes_zero:
            return "undecided"
        return "A" if self.difference.high < 0 else "B"


@dataclass
class SizeResult:
    """The errors of all fits of one size.

    measures: of A, B and, if there is one, the base. fresh, training: by family (targets, restarts), relative to the
    variance of the target, nan for a fit that diverged, which counts as 1, the error of the best constant. redrawn:
    constant targets that were drawn and left.
    """

    index: int
    measures: dict[str, float]
    fresh: dict[str, torch.Tensor]
    training: dict[str, torch.Tensor]
    redrawn: int = 0

    @classmethod
    def empty(cls, index: int, measures: dict[str, float], restarts: int) -> "SizeResult":
        fresh, training = ({f: torch.empty(0, restarts, dtype=torch.float64) for f in FAMILIES} for _ in range(2))
        return cls(index, measures, fresh, training)

    @property
    def targets(self) -> int:
        return len(self.fresh["A"])

    @property
    def diverged(self) -> dict[str, int]:
        return {family: int(self.fresh[family].isnan().sum()) for family in FAMILIES}

    def add(self, found: dict, redrawn: int) -> None:
        """Append the Errors of further targets, by family."""
        self.redrawn += redrawn
        for family, errors in found.items():
            self.fresh[family] = torch.cat([self.fresh[family], errors.fresh])
            self.training[family] = torch.cat([self.training[family], errors.training])

    def estimate(self, statistic: str, confidence: float) -> Estimate:
        over_restarts = STATISTICS[statistic]
        values = {family: over_restarts(self.fresh[family]) for family in FAMILIES}
        return Estimate(
            statistic,
            self.targets,
            {family: confidence_interval(values[family], confidence) for family in FAMILIES},
            {family: over_restarts(self.training[family]).mean().item() for family in FAMILIES},
            confidence_interval(values["A"] - values["B"], confidence),
        )

    def settled(self, confidence: float, variance_threshold: float, stop_when_decided: bool) -> bool:
        """Whether of both statistics the difference has an interval narrower than the threshold, or, if that is
        enough, one that excludes zero."""
        if self.targets < FIRST_LOOK:
            return False
        differences = [self.estimate(statistic, confidence).difference for statistic in STATISTICS]
        return all(d.width < variance_threshold or (stop_when_decided and d.excludes_zero) for d in differences)


@dataclass
class ComparisonResult:
    """names: of the families, {"A": .., "B": .., "base": ..}; settings: what the draws depend on."""

    names: dict[str, str]
    confidence: float
    settings: dict
    sizes: list[SizeResult] = field(default_factory=list)

    def estimates(self, statistic: str) -> list[Estimate]:
        """One per size."""
        return [size.estimate(_known(statistic), self.confidence) for size in self.sizes]

    def rows(self) -> list[dict]:
        """One per size and statistic, as in the CSV file."""
        begun = [size for size in self.sizes if size.targets]
        return [_row(size, size.estimate(s, self.confidence)) for s in STATISTICS for size in begun]

    def density(self, index: int, statistic: str = "min") -> dict[str, torch.Tensor]:
        """By family the sorted errors of a size, (targets,), one per target.

        The share of targets within eps is the share of these that are at most eps.
        """
        over_restarts = STATISTICS[_known(statistic)]
        return {family: over_restarts(self.sizes[index].fresh[family]).sort().values for family in FAMILIES}

    def share_within(self, eps: float, index: int, statistic: str = "min") -> dict[str, float]:
        """By family the share of a size's targets that it fits to within the relative error eps."""
        return {family: (e <= eps).double().mean().item() for family, e in self.density(index, statistic).items()}

    def plot(self, statistic: str, path: str | os.PathLike | None = None):
        """Errors by size; returns the matplotlib figure, and writes it to `path`."""
        from expressivity.plots import errors_by_size

        return errors_by_size(self, _known(statistic), path)

    def plot_density(self, path: str | os.PathLike | None = None, statistic: str = "min"):
        """Shares of targets within eps by size; returns the matplotlib figure, and writes it to `path`."""
        from expressivity.plots import densities

        return densities(self, _known(statistic), path)

    def to_csv(self, path: str | os.PathLike) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(self.rows()[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows())
        write_file(path, text.getvalue())

    def to_json(self, path: str | os.PathLike) -> None:
        """Everything, the errors of all fits included; `from_json` reads it."""
        whole = {"names": self.names, "confidence": self.confidence, "settings": self.settings, "sizes": []}
        for size in self.sizes:
            errors = {"fresh": _lists(size.fresh), "training": _lists(size.training)}
            whole["sizes"].append({**vars(size), **errors})
        whole["estimates"] = [{name: _finite(value) for name, value in row.items()} for row in self.rows()]
        write_file(path, json.dumps(whole, indent=1) + "\n")

    @classmethod
    def from_json(cls, path: str | os.PathLike) -> "ComparisonResult":
        try:
            whole = json.loads(Path(path).read_text(encoding="utf-8"))
            sizes = [
                SizeResult(**{**size, "fresh": _tensors(size["fresh"]), "training": _tensors(size["training"])})
                for size in whole["sizes"]
            ]
            return cls(whole["names"], whole["confidence"], whole["settings"], sizes)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ExpressivityError(f"{path} does not hold the result of a comparison: {error}") from None


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


def _counted(errors: torch.Tensor) -> torch.Tensor:
    return errors.nan_to_num(nan=DIVERGED)


def _known(statistic: str) -> str:
    if statistic not in STATISTICS:
        raise ExpressivityError(f"the statistic is {statistic!r}; allowed: {', '.join(STATISTICS)}")
    return statistic


def _lists(errors: dict[str, torch.Tensor]) -> dict[str, list]:
    return {family: [[_finite(error) for error in row] for row in rows.tolist()] for family, rows in errors.items()}


def _finite(value):
    """The value, or None where JSON has no number for it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _tensors(errors: dict[str, list]) -> dict[str, torch.Tensor]:
    numbers = {f: [[math.nan if e is None else e for e in row] for row in rows] for f, rows in errors.items()}
    return {f: torch.tensor(rows, dtype=torch.float64) for f, rows in numbers.items()}
