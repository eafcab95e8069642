"""A comparison of two families, from a configuration file."""

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from common.keys import REQUIRED, key
from expressivity.comparator import STATE, ArchitectureComparator, check_options
from expressivity.criteria import CRITERIA
from expressivity.errors import SEVERAL, ExpressivityError, each_is
from expressivity.experiments.printed import tables_of
from expressivity.measured_families import measure_families, measures_table, write_measures
from expressivity.measures import MEASURES, check_measures
from expressivity.named import LAWS, made, named
from expressivity.results import ComparisonResult
from expressivity.spaces import ArchitecturalSpace
from expressivity.verdict import STATISTICS

MEASURED = "measures.csv"


@dataclass
class ComparisonExperiment:
    """Find which of two families imitates the other, or a base, better."""

    input_size: int | list[int] = key(REQUIRED, "Shape of one input, without the batch dimension.")
    A: dict = key(REQUIRED, "The first family: keywords of ArchitecturalSpace.")
    B: dict = key(REQUIRED, "The second family, likewise.")
    base: dict | None = key(None, "A third family that both imitate; null: A and B imitate each other.")
    shared: dict | None = key(None, "Keywords common to all families; its parameters are merged into theirs.")
    criterion: str | dict = key(
        "mse", f"Loss to minimise: {', '.join(CRITERIA)}, module:name, or an object with a name and options."
    )
    law: str | dict = key(
        "normal", f"Distribution of the inputs: {', '.join(LAWS)} (mean 0, variance 1), module:name, or an object."
    )
    tolerance: float = key(0.0, "Without a base: allowed difference of the measures, relative to the larger one.")
    dtype: Literal["float32", "float64"] = key("float32", "Precision of networks and data.")
    max_iterations: int = key(100, "Maximum number of targets per size.")
    sub_iterations: int = key(5, "Fits per target, from different initialisations.")
    variance_threshold: float = key(0.0, "A size is settled once the interval of A - B is narrower than this.")
    stop_when_decided: bool = key(True, "A size is also settled once there is a winner, or the fits explain A - B.")
    confidence: float = key(0.95, "Confidence level of all intervals.")
    evaluation_rows: int = key(1024, "Fresh inputs per target.")
    seed: int = key(0, "Seed of all random draws.")
    stack_size: int | None = key(None, "Maximum number of networks fitted together; null: by their memory use.")
    fast: bool = key(True, "Fit networks together where possible; false: one at a time.")

    measures: list[str] | None = key(
        None, f"Measures of random networks of A and B, without training: {', '.join(MEASURES)}; null: none."
    )
    measure_networks: int = key(16, "Random networks of each family over which the measures are averaged.")

    trust_modules = False  # only the command line sets it
    incidental = ("max_iterations", "variance_threshold", "stop_when_decided", "confidence", "stack_size", "fast")
    incidental += ("measures", "measure_networks")
    files = (STATE, "results.csv", *(f"{statistic}.png" for statistic in STATISTICS), "density.png", MEASURED)
    measured = ()  # rows of the measures, once it has run

    def __post_init__(self):
        if self.measures is None:
            self.files = self.files[:-1]

    def run(self, directory: Path, progress: bool) -> ComparisonResult:
        """Run the comparison, or resume the one in `directory`."""
        with _default_dtype(getattr(torch, self.dtype)):
            options = {name: getattr(self, name) for name in OPTIONS}
            comparator = self.comparator()
            if self.measures is not None:
                drawn = self.measure_networks, self.seed, self.confidence
                self.measured = measure_families(comparator.spaces, comparator.law, self.measures, *drawn)
            return comparator.compare(**options, save_path=directory, progress=progress)

    def check(self) -> None:
        """Raise ExpressivityError if the configuration is invalid."""
        check_options({name: getattr(self, name) for name in OPTIONS})
        check_measures(self.measures)
        each_is([self.measure_networks], SEVERAL, "measure_networks")
        with _default_dtype(getattr(torch, self.dtype)):
            self.comparator()

    def comparator(self) -> ArchitectureComparator:
        """Build the comparator. Raises ExpressivityError if the configuration is invalid."""
        roles = {"A": self.A, "B": self.B} | ({} if self.base is None else {"base": self.base})
        spaces = {role: self._space(role, given) for role, given in roles.items()}
        criterion, law = (made(getattr(self, kind), kind, self.trust_modules) for kind in ("criterion", "law"))
        return ArchitectureComparator(**spaces, criterion=criterion, law=law, tolerance=self.tolerance)

    def write(self, result: ComparisonResult, directory: Path) -> None:
        """Write the JSON and CSV files and the figures."""
        state, table, *plots, density = (directory / name for name in self.files if name != MEASURED)
        result.to_json(state)
        result.to_csv(table)
        for statistic, path in zip(STATISTICS, plots, strict=True):
            result.plot(statistic, path)
        result.plot_density(density)
        if self.measured:
            write_measures(self.measured, directory / MEASURED)
        else:
            (directory / MEASURED).unlink(missing_ok=True)

    def tables(self, result: ComparisonResult) -> dict[str, list[dict]]:
        """Titles and rows of the tables to print."""
        found = {}
        if self.measured:
            title = f"measures without training, mean of {self.measure_networks} random networks of each family"
            found[title] = measures_table(self.measured, result.names)
        return found | tables_of(result)

    def notes(self, result: ComparisonResult) -> list[str]:
        """Lines to print below the tables."""
        return result.advice()

    def _space(self, role: str, given: dict) -> ArchitecturalSpace:
        keywords = {**(self.shared or {}), **given}
        keywords.setdefault("name", role)
        common, own = ((source or {}).get("parameters", {}) for source in (self.shared, given))
        if not isinstance(common, dict):
            raise ExpressivityError("shared.parameters must be an object of keywords for all families and sizes")
        parts = own if isinstance(own, list) else [own]
        if not all(isinstance(part, dict) for part in parts):
            raise ExpressivityError(f"{role}.parameters must be an object or a list of objects, one per size")
        merged = [{**common, **part} for part in parts]
        keywords["parameters"] = merged if isinstance(own, list) else merged[0]
        for kind in ("architecture", "optimizer", "train"):
            given = keywords.get(kind)
            if isinstance(given, list):
                each = enumerate(given)
                keywords[kind] = [named(name, kind, f"{role}.{kind}[{k}]", self.trust_modules) for k, name in each]
            elif given is not None or kind == "architecture":
                keywords[kind] = named(given, kind, f"{role}.{kind}", self.trust_modules)
        if "input_size" in keywords:
            raise ExpressivityError(f"input_size is set in {role} or shared; set it at the top level of the file")
        size = self.input_size if isinstance(self.input_size, int) else tuple(self.input_size)
        return ArchitecturalSpace(size, **keywords)


OPTIONS = (
    "max_iterations",
    "sub_iterations",
    "variance_threshold",
    "stop_when_decided",
    "confidence",
    "evaluation_rows",
    "seed",
    "stack_size",
    "fast",
)


@contextmanager
def _default_dtype(dtype: torch.dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
