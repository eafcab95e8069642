"""Compares two families of networks by how well each can be fitted to the other, or to a common base."""

import functools
import json
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.distributions import Distribution, Normal

from common.errors import type_and_line
from expressivity.errors import COUNT, NOT_NEGATIVE, SEED, SEVERAL, SHARE, ExpressivityError, each_is
from expressivity.fitting import Errors, Fitter
from expressivity.randomness import seeded
from expressivity.results import FAMILIES, FIRST_LOOK, ComparisonResult, SizeResult
from expressivity.spaces import ALLOWED, ArchitecturalSpace, trainable_parameters
from expressivity.targets import Source, outputs, sampled

STATE = "comparison.json"
LOOKS = 4  # minimum number of interim looks per size, at each of which the state is saved as well
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


@dataclass
class Contest:
    """The comparison of both families at one size.

    sources: where the targets of each family come from; with a base, the same source for both.
    fitters: what fits each family to its targets.
    """

    sources: dict[str, Source]
    fitters: dict[str, Fitter]

    def fit(self, numbers: range) -> tuple[dict[str, Errors], int]:
        """Errors of both families on the targets with these numbers, and the number of rejected (constant) targets."""
        a, b = (self.sources[family] for family in FAMILIES)
        targets = {"A": a.draw(numbers)}
        targets["B"] = targets["A"] if a is b else b.draw(numbers)
        found = {family: self.fitters[family].fit(targets[family], numbers) for family in FAMILIES}
        return found, targets["A"].redrawn + (0 if a is b else targets["B"].redrawn)

    def targets_at_once(self, most: int) -> int:
        """Number of targets per block: enough to fill the stacks, few enough to stop before `most` targets."""
        filling = min(fitter.at_once // fitter.restarts for fitter in self.fitters.values())
        return max(1, min(filling, max(FIRST_LOOK, most // LOOKS)))


class ArchitectureComparator:
    """Compares two families, size by size, by the error that remains when a family is fitted to random targets.

    A, B: the families. Without a base each imitates the other: A is fitted to random members of B, and B to random
        members of A.
    base: a third family; A and B are both fitted to its members, on the same data.
    criterion: the loss to minimise. Errors are divided by the loss of the mean output; for MSE this is the variance.
    law: distribution of the inputs, any object with `sample(shape)`.
    tolerance: without a base, the largest allowed difference between the measures of A and B, relative to the larger.
    device: where to compute; None: CUDA if available, else the CPU.

    Raises ExpressivityError if the families cannot be compared.
    """

    def __init__(
        self,
        A: ArchitecturalSpace,
        B: ArchitecturalSpace,
        base: ArchitecturalSpace | None = None,
        criterion: nn.Module = CRITERION,
        law: Distribution = LAW,
        *,
        tolerance: float = 0.0,
        device: str | torch.device | None = None,
    ):
        self.spaces = {"A": A, "B": B} if base is None else {"A": A, "B": B, "base": base}
        self.criterion, self.law, self.tolerance = criterion, law, tolerance
        for role, space in self.spaces.items():
            if not isinstance(space, ArchitecturalSpace):
                raise ExpressivityError(f"{role} is {space!r}; it must be an ArchitecturalSpace")
        self.device = _device(device)
        self.result: ComparisonResult | None = None
        each_is([tolerance], NOT_NEGATIVE, "tolerance")
        self.count = self._count()
        self.measures = {role: [s.measured(k) for k in range(self.count)] for role, s in self.spaces.items()}
        if base is None:
            self._check_measures()
        self._check_sizes()

    def compare(
        self,
        max_iterations: int = 100,
        sub_iterations: int = 5,
        variance_threshold: float = 0.0,
        *,
        stop_when_decided: bool = True,
        confidence: float = 0.95,
        evaluation_rows: int = 1024,
        seed: int = 0,
        save_path=None,
        stack_size: int | None = None,
        fast: bool = True,
        progress: bool = True,
    ) -> ComparisonResult:
        """Fit both families to random targets at each size, until the result is settled.

        max_iterations: maximum number of targets per size.
        sub_iterations: restarts, i.e. fits per target from different initialisations.
        variance_threshold: a size is settled once the confidence interval of the difference is narrower than this, for
            the minimum as well as for the mean over restarts.
        stop_when_decided: a size is also settled once these intervals exclude zero.
        confidence: confidence level of all intervals.
        evaluation_rows: number of fresh inputs per target.
        seed: seed of all random draws.
        save_path: directory in which to save the state; an interrupted comparison resumes from it.
        stack_size: maximum number of networks fitted together; None: chosen from their memory use.
        fast: fit networks together where possible; False: one at a time.
        progress: show a progress bar on a terminal.

        Raises ExpressivityError if an option is invalid, `save_path` holds a different comparison, or all fits diverge.
        """
        draws = {"seed": seed, "sub_iterations": sub_iterations, "evaluation_rows": evaluation_rows}
        check_options({**draws, "max_iterations": max_iterations, "variance_threshold": variance_threshold})
        check_options({"confidence": confidence, "stack_size": stack_size})
        result = self.result = self._start(draws, confidence, save_path)
        rule = confidence, variance_threshold, stop_when_decided
        with _bar(self.count * max_iterations, progress) as bar:
            for size in result.sizes:
                contest = None
                while size.targets < max_iterations and not size.settled(*rule):
                    contest = contest or self.contest(size.index, draws, stack_size, fast)
                    block = contest.targets_at_once(max_iterations)
                    numbers = range(size.targets, min(size.targets + block, max_iterations))
                    size.add(*contest.fit(numbers))
                    bar.update(len(numbers))
                    if save_path is not None:
                        result.to_json(Path(save_path, STATE))
                bar.update((size.index + 1) * max_iterations - bar.n)  # count a settled size as done
        return result

    def plot(self, statistic: str, path=None):
        """Plot the last comparison; see `ComparisonResult.plot`."""
        if self.result is None:
            raise ExpressivityError("nothing to plot; call compare() first")
        return self.result.plot(statistic, path)

    def _start(self, draws: dict, confidence: float, save_path) -> ComparisonResult:
        """The saved result of the same comparison, to resume from, or an empty one."""
        settings = {**draws, "spaces": {role: _settings(space) for role, space in self.spaces.items()}}
        settings |= {"criterion": _described(self.criterion), "law": _described(self.law)}
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
        known = {role: Source(self.spaces[role], index, self.law, rows, seed, self.device) for role in targets.values()}
        sources, fitters = {family: known[targets[family]] for family in FAMILIES}, {}
        for family in FAMILIES:
            fitter = Fitter(self.spaces[family], index, restarts, self.criterion, seed, self.device, stack_size, fast)
            fitter.probe(sources[family].draw(range(1)))
            if fitter.obstacle and fast:
                warnings.warn(
                    f"{fitter.space.where(index)}: networks are fitted one at a time: {fitter.obstacle}", stacklevel=3
                )
            fitters[family] = fitter
        return Contest(sources, fitters)

    def _count(self) -> int:
        """The number of sizes, the same for all spaces."""
        counts = [(space.name, space.count) for space in self.spaces.values() if space.count is not None]
        if len({count for _, count in counts}) > 1:
            shown = ", ".join(f"{name!r} {count}" for name, count in counts)
            raise ExpressivityError(f"all spaces must have the same number of sizes; given: {shown}")
        return counts[0][1] if counts else 1

    def _check_measures(self) -> None:
        a, b = self.measures["A"], self.measures["B"]
        if any(abs(x - y) > self.tolerance * max(x, y) for x, y in zip(a, b, strict=True)):
            raise ExpressivityError(
                "without a base, A and B must have the same measure at each size "
                f"(within tolerance {self.tolerance:g}); {self.spaces['A'].name!r} has {a}, "
                f"{self.spaces['B'].name!r} has {b}; change their parameters, set tolerance, or give a base"
            )

    def _check_sizes(self) -> None:
        """Raise ExpressivityError unless all networks have the same sizes and those to fit have parameters."""
        first = self.spaces["A"]
        fitted = {self.spaces[family] for family in FAMILIES if self.spaces[family].train is None}
        for space in self.spaces.values():
            if space.input_size != first.input_size:
                raise ExpressivityError(
                    f"input sizes differ: {first.name!r} has {first.input_size}, {space.name!r} has {space.input_size}"
                )
        for index in range(self.count):
            shapes = {}
            for space in self.spaces.values():
                with seeded("check", index):
                    x = sampled(self.law, 2, space, index)
                    network = space.build(index)
                    shapes[space] = tuple(outputs(space, index, network, x).shape[1:])
                if space in fitted and not trainable_parameters(network):
                    raise ExpressivityError(f"{space.where(index)}: the network has no trainable parameters")
                if shapes[space] != shapes[first]:
                    raise ExpressivityError(
                        f"size {index}: output sizes differ: {first.name!r} has {shapes[first]}, "
                        f"{space.name!r} has {shapes[space]}"
                    )


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


def _settings(space: ArchitecturalSpace) -> dict:
    """The settings of a space that affect results, used to recognise a saved comparison."""
    keys = ("name", "input_size", "architecture", "parameters", "optimizer", "train", *ALLOWED)
    return {key: _described(getattr(space, key)) for key in keys}


def _described(value) -> str:
    """A description of a value that is stable across processes."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{value.tolist()}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_described(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_described, value))}]"
    if isinstance(value, functools.partial):
        return f"{_described(value.func)}({_described(value.args)}, {_described(value.keywords)})"
    if isinstance(value, nn.Module):  # weights are re-initialised anyway; options may be missing from its repr
        options = {key: each for key, each in vars(value).items() if isinstance(each, int | float | str)}
        return f"{value!r}({_described(options)})"
    if isinstance(value, Distribution):
        return f"{type(value).__qualname__}({_described(vars(value))})"
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else re.sub(r" at 0x\w+", "", repr(value))


def _bar(total: int, shown: bool):
    """A progress bar over targets, shown only on a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, unit="target", leave=False, disable=None if shown else True)
