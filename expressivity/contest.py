"""The comparison of two families at one size: their targets, their fits, and the checks of these fits."""

import warnings
from dataclasses import dataclass, replace

import torch

from expressivity.errors import ExpressivityError
from expressivity.fitting import Fitter
from expressivity.polishing import RESTARTS as POLISHED_RESTARTS
from expressivity.polishing import TARGETS as POLISHED
from expressivity.search import ALONE, FIRST, TARGETS, Found, search
from expressivity.spaces import AUTO
from expressivity.targets import Source, Targets
from expressivity.verdict import FAMILIES, FIRST_LOOK, KINDS

LOOKS = 4  # minimum number of interim looks per size, at each of which the state is saved as well
CHECKED = 64  # targets for which floors and errors at half the budget are measured


@dataclass
class Contest:
    """Both families at one size.

    sources: where the targets of each family come from; with a base, the same source for both.
    own: the same for the members of each family itself, with as many rows.
    fitters: what fits each family to its targets.
    """

    sources: dict[str, Source]
    own: dict[str, Source]
    fitters: dict[str, Fitter]

    def fit(self, numbers: range) -> tuple[dict[str, dict[str, torch.Tensor]], int]:
        """Fit both families to the targets with these numbers.

        Returns errors by kind (see `results.SizeResult`) and family, and the number of rejected (constant) targets.
        Raises ExpressivityError if all fits of a family diverge.
        """
        few = range(numbers.start, max(numbers.start, min(numbers.stop, CHECKED)))
        drawn = {source: source.draw(numbers) for source in self.sources.values()}
        kinds: dict[str, dict[str, torch.Tensor]] = {kind: {} for kind in KINDS}
        for family, fitter in self.fitters.items():
            targets = drawn[self.sources[family]]
            found = fitter.fit(targets, numbers)
            if found.fresh.isnan().all():
                raise ExpressivityError(self._diverged(fitter, found.fresh.numel()))
            kinds["fresh"][family], kinds["training"][family] = found.fresh, found.training
            none = found.fresh[:0]
            kinds["half"][family] = self._half(fitter, targets, few) if few and fitter.has_recipe else none
            kinds["floor"][family] = fitter.fit(self._own(family, drawn, few), few).fresh if few else none
            kinds["optimum"][family] = fitter.optima(targets, numbers)
        return kinds, sum(targets.redrawn for targets in drawn.values())

    def polish(self, families: list[str]) -> dict[str, dict[str, torch.Tensor]]:
        """Errors, by kind and family, after another optimiser went on with the first fits to the first targets."""
        found, numbers = {}, range(POLISHED)
        for family in families:
            fitter = replace(self.fitters[family], restarts=min(POLISHED_RESTARTS, self.fitters[family].restarts))
            found[family] = fitter.polish(self.sources[family].draw(numbers), numbers)
        return {"polished": found}

    def _half(self, fitter: Fitter, targets: Targets, few: range) -> torch.Tensor:
        """Errors after half the steps; nan, as of a diverged fit, if there is only one step."""
        if fitter.recipe.steps(targets.x.shape[1]) < 2:
            return torch.full((len(few), fitter.restarts), torch.nan, dtype=torch.float64)
        return fitter.fit(targets.first(len(few)), few, 0.5).fresh

    def _own(self, family: str, drawn: dict[Source, Targets], few: range) -> Targets:
        source = self.own[family]
        return drawn[source].first(len(few)) if source in drawn else source.draw(few)

    def _diverged(self, fitter: Fitter, fits: int) -> str:
        own = "train returned networks whose outputs are not finite"
        advice = "lower lr or grad_clamp" if fitter.has_recipe else own
        return f"{fitter.space.where(fitter.index)}: all {fits} fits diverged; {advice}"

    def targets_at_once(self, most: int) -> int:
        """Number of targets per block: enough to fill the stacks, few enough to stop before `most` targets."""
        filling = min(fitter.at_once // fitter.restarts for fitter in self.fitters.values())
        return max(1, min(filling, max(FIRST_LOOK, most // LOOKS)))

    def tune(self) -> dict[str, Found]:
        """Find the learning rate of each family on targets of its own; see `search.search`."""
        found = {}
        for family, fitter in self.fitters.items():
            given, found[family] = fitter.space.at("lr", fitter.index), Found(None, 0.0, None)
            if fitter.has_recipe:
                numbers = range(FIRST, FIRST + (ALONE if fitter.obstacle else TARGETS))
                targets, rate = self.sources[family].draw(numbers), None if given == AUTO else given
                found[family] = search(fitter, targets, numbers, rate, fitter.space.lr_candidates)
        return found

    def use(self, found: dict[str, Found]) -> None:
        """Fit with these learning rates."""
        for family in FAMILIES:
            self.fitters[family].lr = found[family].lr

    def probe(self) -> None:
        """Find out which networks can be fitted together, and warn of those that cannot."""
        for family, fitter in self.fitters.items():
            fitter.probe(self.sources[family].draw(range(1)))
            if fitter.obstacle and fitter.fast:
                where = fitter.space.where(fitter.index)
                warnings.warn(f"{where}: networks are fitted one at a time: {fitter.obstacle}", stacklevel=4)
