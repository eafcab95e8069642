"""Compares two families of networks by how well each can be fitted to the other, or to a common base."""

import inspect
import json
from pathlib import Path

import torch
from torch import nn
from torch.distributions import Distribution, Normal

from common.errors import type_and_line
from expressivity.compatibility import check_measures, check_networks, count_of
from expressivity.contest import Contest
from expressivity.described import described, settings_of
from expressivity.errors import COUNT, NOT_NEGATIVE, SEED, SEVERAL, SHARE, ExpressivityError, each_is
from expressivity.fitting import Fitter
from expressivity.legacy import COMPARATOR, COMPARE, translated
from expressivity.results import ComparisonResult, SizeResult
from expressivity.spaces import AUTO, DEFAULTS, ArchitecturalSpace
from expressivity.targets import Source
from expressivity.verdict import FAMILIES, STATISTICS

STATE = "comparison.json"
ALLOWED_OPTIONS = {
    "max_iterations": COUNT,
    "sub_iterations": COUNT,
    "variance_threshold": NOT_NEGATIVE,
    "confidence": SHARE,
    "evaluation_rows": SEVERAL,
    "seed": SEED,
    "stack_size": COUNT,
}
CRITERION, LAW = nn.MSELoss(), Normal(0.0, 1.0)


class ArchitectureComparator:
    """Compares two families, size by size, by the error that remains when a family is fitted to random targets.

    A, B: the families. Without a base each imitates the other: A is fitted to random members of B, and B to random
        members of A.
    base: a third family; A and B are both fitted to its members, on the same data.
    criterion: the loss to minimise, smallest where the output equals the target. Errors are 0 at a perfect imitation
        and 1 at the best constant; for MSE the loss is divided by the variance of the target.
    law: distribution of the inputs, any object with `sample(shape)`.
    tolerance: without a base, the largest allowed difference between the measures of A and B, relative to the larger.
        Unequal measures are an error, or a warning if a space is a legacy one.
    device: where to compute; None: CUDA if available, else the CPU.
    spellings: A_space, B_space and base_space are accepted as well.

    Raises ExpressivityError if the families cannot be compared.
    """

    def __init__(
        self,
        A: ArchitecturalSpace | None = None,
        B: ArchitecturalSpace | None = None,
        base: ArchitecturalSpace | None = None,
        criterion: nn.Module = CRITERION,
        law: Distribution = LAW,
        *,
        tolerance: float = 0.0,
        device: str | torch.device | None = None,
        **spellings,
    ):
        spaces = {"A": A, "B": B, "base": base}
        known = {**dict.fromkeys(inspect.signature(ArchitectureComparator).parameters), **spaces}
        spaces |= translated(spellings, COMPARATOR, known, "comparator")
        self.spaces = {role: space for role, space in spaces.items() if role != "base" or space is not None}
        self.criterion, self.law, self.tolerance = criterion, law, tolerance
        for role, space in self.spaces.items():
            if not isinstance(space, ArchitecturalSpace):
                raise ExpressivityError(f"{role} is {space!r}; it must be an ArchitecturalSpace")
        self.device = _device(device)
        self.result: ComparisonResult | None = None
        each_is([tolerance], NOT_NEGATIVE, "tolerance")
        if not callable(criterion):
            raise ExpressivityError(f"criterion is {criterion!r}; it must be a module or a function (output, target)")
        self.count = count_of(self.spaces)
        self.measures = {role: [s.measured(k) for k in range(self.count)] for role, s in self.spaces.items()}
        if "base" not in self.spaces:
            check_measures(self.spaces, self.measures, tolerance)
        check_networks(self.spaces, self.count, law)

    def compare(
        self,
        max_iterations: int = 100,
        sub_iterations: int = 5,
        variance_threshold: float | None = None,
        plot_mode: str | None = None,
        *,
        stop_when_decided: bool = True,
        confidence: float = 0.95,
        evaluation_rows: int = 1024,
        seed: int = 0,
        save_path=None,
        stack_size: int | None = None,
        fast: bool = True,
        progress: bool = True,
        **spellings,
    ) -> ComparisonResult:
        """Fit both families to random targets at each size, until the result is settled.

        First, at each size, a short search finds the learning rate of a family whose lr is "auto", or what another one
        would gain. Besides the fits to the targets there are fits to members of the family itself, whose errors are its
        floor, and fits with half the steps; both for the first `contest.CHECKED` targets.

        max_iterations: maximum number of targets per size.
        sub_iterations: restarts, i.e. fits per target from different initialisations.
        variance_threshold: a size is settled once the confidence interval of the difference is narrower than this, for
            the minimum as well as for the mean over restarts; None: 0.
        plot_mode: "min" or "mean": make the figure of `plot` at the end.
        stop_when_decided: a size is also settled once there is a winner, or a difference that the fits explain.
        confidence: confidence level of all intervals.
        evaluation_rows: number of fresh inputs per target.
        seed: seed of all random draws.
        save_path: directory in which to save the state; an interrupted comparison resumes from it.
        stack_size: maximum number of networks fitted together; None: chosen from their memory use.
        fast: fit networks together where possible; False: one at a time.
        progress: show a progress bar on a terminal.
        spellings: variance_threashold is accepted as well.

        Raises ExpressivityError if an option is invalid, `save_path` holds a different comparison, or all fits diverge.
        """
        known = {**dict.fromkeys(inspect.signature(self.compare).parameters), "variance_threshold": variance_threshold}
        old = translated(spellings, COMPARE, known, "compare").get("variance_threshold")
        variance_threshold = next((each for each in (variance_threshold, old) if each is not None), 0.0)
        if plot_mode not in (None, *STATISTICS):
            raise ExpressivityError(f"plot_mode is {plot_mode!r}; allowed: {', '.join(STATISTICS)}")
        draws = {"seed": seed, "sub_iterations": sub_iterations, "evaluation_rows": evaluation_rows}
        check_options({**draws, "max_iterations": max_iterations, "variance_threshold": variance_threshold})
        check_options({"confidence": confidence, "stack_size": stack_size})
        result = self.result = self._start(draws, confidence, save_path)
        rule = confidence, variance_threshold, stop_when_decided
        with _bar(self.count * max_iterations, progress) as bar:
            for size in result.sizes:
                contest = None
                while (losers := size.unpolished_losers(confidence)) or (
                    size.targets < max_iterations and not size.settled(*rule)
                ):
                    if contest is None:
                        contest = self.contest(size.index, draws, stack_size, fast)
                        size.found = size.found or contest.tune()
                        contest.use(size.found)
                    if not losers:
                        block = contest.targets_at_once(max_iterations)
                        numbers = range(size.targets, min(size.targets + block, max_iterations))
                        size.add(*contest.fit(numbers))
                        bar.update(len(numbers))
                        losers = size.unpolished_losers(confidence)
                    if losers:  # before anything is saved that calls the other family the winner
                        size.add(contest.polish(losers))
                    if save_path is not None:
                        result.to_json(Path(save_path, STATE))
                bar.update((size.index + 1) * max_iterations - bar.n)  # count a settled size as done
        if plot_mode is not None:
            self.plot(plot_mode)
        return result

    def plot(self, statistic: str, path=None):
        """Plot the last comparison; see `ComparisonResult.plot`."""
        if self.result is None:
            raise ExpressivityError("nothing to plot; call compare() first")
        return self.result.plot(statistic, path)

    def _start(self, draws: dict, confidence: float, save_path) -> ComparisonResult:
        """The saved result of the same comparison, to resume from, or an empty one."""
        settings = {**draws, "spaces": {role: settings_of(space) for role, space in self.spaces.items()}}
        settings |= {"criterion": described(self.criterion), "law": described(self.law)}
        units = {self.spaces[family].unit for family in FAMILIES}
        settings |= {"unit": units.pop() if len(units) == 1 else "measure"}
        settings |= {"measures": self.measures, "dtype": str(torch.get_default_dtype())}
        settings = json.loads(json.dumps(settings))
        names = {role: space.name for role, space in self.spaces.items()}
        if save_path is not None and Path(save_path, STATE).exists():
            result = ComparisonResult.from_json(Path(save_path, STATE))
            different = [key for key in settings if settings[key] != result.settings.get(key)]
            if different:
                raise ExpressivityError(
                    f"{Path(save_path, STATE)} belongs to a different comparison (different {', '.join(different)}); "
                    "choose another save_path or delete the file"
                )
            result.confidence = confidence
            return result
        measures = [{role: values[index] for role, values in self.measures.items()} for index in range(self.count)]
        sizes = [SizeResult.empty(index, each, draws["sub_iterations"]) for index, each in enumerate(measures)]
        return ComparisonResult(names, confidence, settings, sizes)

    def contest(self, index: int, draws: dict, stack_size: int | None, fast: bool) -> Contest:
        """The comparison at one size; draws: seed, sub_iterations and evaluation_rows, as in `compare`."""
        seed, restarts, rows = draws["seed"], draws["sub_iterations"], draws["evaluation_rows"]
        targets = {"A": "base", "B": "base"} if "base" in self.spaces else {"A": "B", "B": "A"}

        def source(role: str, fitted: int) -> Source:
            return Source(self.spaces[role], index, self.law, fitted, rows, seed, self.device)

        sources = {family: source(role, self.spaces[role].rows(index)) for family, role in targets.items()}
        own = {family: source(family, sources[family].rows) for family in FAMILIES}
        lr = {family: self.spaces[family].at("lr", index) for family in FAMILIES}
        common = {"criterion": self.criterion, "seed": seed, "device": self.device}
        fitters = {
            family: Fitter(
                self.spaces[family],
                index,
                restarts,
                lr=DEFAULTS["lr"] if lr[family] == AUTO else lr[family],
                stack_size=stack_size,
                fast=fast,
                **common,
            )
            for family in FAMILIES
        }
        contest = Contest(sources, own, fitters)
        contest.probe()
        return contest


def _device(given: str | torch.device | None) -> torch.device:
    try:
        device = torch.device(given or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ExpressivityError(f"device {given!r} cannot be used: {type_and_line(error)}") from None
    return device


def check_options(given: dict) -> None:
    """Raise ExpressivityError for the first invalid option of `compare`."""
    for name, value in given.items():
        if name in ALLOWED_OPTIONS and not (name == "stack_size" and value is None):
            each_is([value], ALLOWED_OPTIONS[name], name)


def _bar(total: int, shown: bool):
    """A progress bar over targets, shown only on a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit="target", leave=False, disable=None if shown else True)
