"""What the errors of one size say: estimates with intervals, what the fits explain of them, and a verdict.

The error of a fit is an upper bound: it contains the distance of the family to the target and what the optimiser left.
A family is called the winner only if the other one would remain behind even if better fits took from its error all that
the measurements allow: its floor, the movement of its error with the budget or with another optimiser, and the gain of
another learning rate.
"""

from dataclasses import dataclass

import torch

from expressivity.intervals import Interval, confidence_interval

FAMILIES = ("A", "B")
KINDS = ("fresh", "training", "half", "floor", "polished", "optimum")  # of errors, see `results.SizeResult`
OTHER = {"A": "B", "B": "A"}
WORST = 1.0  # errors above that of the best constant, and those of diverged fits, count as this in averages
HOPELESS = 100.0  # and as this where it matters whether a fit still improves
STUCK = 0.1  # share of targets on which a family is no better than a constant, above which its fits have failed


def bounded(errors: torch.Tensor, worst: float = WORST) -> torch.Tensor:
    """Errors in which none is above `worst`, so that one bad fit cannot decide an average."""
    return errors.nan_to_num(nan=worst).clamp_max(worst)


STATISTICS = {
    "min": lambda errors, worst=WORST: bounded(errors, worst).amin(1),
    "mean": lambda errors, worst=WORST: bounded(errors, worst).mean(1),
}
FIRST_LOOK = 32  # number of targets from which intervals are used: the mean of fewer may be far from normal
UNDECIDED, UNDERFITTED = "undecided", "underfitted"


@dataclass(frozen=True)
class Estimate:
    """Estimates at one size for one statistic over restarts.

    statistic: "min" or "mean".
    targets: number of targets.
    errors: mean error on fresh rows over targets, by family.
    training: mean error on the training rows, by family.
    difference: mean paired difference of the errors, A - B.
    floors: mean error of each family on members of its own, where 0 could be reached.
    movements: mean paired difference of the errors at half the budget and at the whole one; None: not measured.
    polishes: mean paired difference of the errors before and after another optimiser went on; None: not measured.
    gains: by how much another learning rate lowered the mean error of the search, by family.
    stuck: share of targets on which a family is no better than a constant.
    optima: mean error, at most 1, of the best member of the family for the rows of the fit; None: no closed form.
    mutual: whether each family imitates the other, so that the targets of one are members of the other.
    """

    statistic: str
    targets: int
    errors: dict[str, Interval]
    training: dict[str, float]
    difference: Interval
    floors: dict[str, Interval]
    movements: dict[str, Interval | None]
    polishes: dict[str, Interval | None]
    gains: dict[str, float]
    stuck: dict[str, float]
    optima: dict[str, float | None]
    mutual: bool

    @property
    def winner(self) -> str:
        """The family with the smaller error, "A" or "B", or why there is none.

        "undecided": there are fewer than FIRST_LOOK targets, the interval of the difference contains zero, or the
        better family is no better than a constant.
        "underfitted": the difference may be due to the fits of the worse family; see `slack`. So it may if these are no
        better than a constant on more than STUCK of the targets.
        """
        leader = self.leader
        if leader is None:
            return UNDECIDED
        ahead = self.margin > self.slack(OTHER[leader]) and self.stuck[OTHER[leader]] <= STUCK
        return leader if ahead else UNDERFITTED

    @property
    def leader(self) -> str | None:
        """The family whose errors are smaller by more than chance; None if there is none."""
        if self.targets < FIRST_LOOK or not self.difference.excludes_zero:
            return None
        leader = "A" if self.difference.high < 0 else "B"
        return leader if self.errors[leader].high < WORST else None

    @property
    def margin(self) -> float:
        """The end of the interval of the difference that is nearer to zero, as a distance."""
        return min(abs(self.difference.low), abs(self.difference.high))

    def slack(self, family: str, upper: bool = True) -> float:
        """By how much the error of a family may be too large because of its fits.

        The sum of its floor, of its movement, and of the gain of another learning rate. The movement is what its error
        loses from half the budget to the whole one, or when another optimiser goes on, whichever is more. If each
        family imitates the other, the larger floor counts: the targets of one family are members of the other, and may
        be as hard to fit to as these are for their own family.

        upper: use the upper ends of the intervals, not the means.
        """

        def end(interval: Interval) -> float:
            return interval.high if upper else interval.mean

        floor = max(end(self.floors[each]) for each in (FAMILIES if self.mutual else (family,)))
        moved = [end(each) for each in (self.movements[family], self.polishes[family]) if each is not None]
        return floor + max([0.0, *moved]) + self.gains[family]

    @property
    def final(self) -> bool:
        """Whether further targets would hardly change the verdict: a winner, or a difference that the fits explain."""
        leader = self.leader
        if leader is None:
            return False
        loser = OTHER[leader]
        explained = abs(self.difference.mean) <= self.slack(loser, upper=False) or self.stuck[loser] > STUCK
        return self.winner == leader or explained

    def advice(self, names: dict[str, str]) -> str | None:
        """What to change if the size is underfitted; names: of the families."""
        leader = self.leader
        if leader is None or self.winner != UNDERFITTED:
            return None
        family = OTHER[leader]
        if self.stuck[family] > STUCK:
            share = f"{self.stuck[family]:.0%} of the targets"
            return f'{names[family]} is no better than a constant on {share}; raise epoch, or set lr to "auto"'
        movement = self.movements[family]
        floor = max(FAMILIES if self.mutual else (family,), key=lambda each: self.floors[each].mean)
        polish = self.polishes[family]
        parts = {"floor": self.floors[floor].mean, "movement": movement.mean if movement else 0.0}
        parts |= {"polish": polish.mean if polish else 0.0, "gain": self.gains[family]}
        cures = {
            "floor": f"{names[floor]} does not reach even its own members; raise epoch, sub_iterations or the rows",
            "movement": f"the error of {names[family]} still falls with the budget; raise epoch",
            "polish": f"L-BFGS still lowers the error of {names[family]}; set another optimizer, or raise epoch",
            "gain": f'another learning rate is better for {names[family]}; set lr to "auto"',
        }
        shown = ", ".join(f"{name} {value:.2g}" for name, value in parts.items())
        return f"{cures[max(parts, key=parts.__getitem__)]} ({shown})"


def estimated(
    statistic: str,
    confidence: float,
    errors: dict[str, dict[str, torch.Tensor]],
    gains: dict[str, float],
    mutual: bool,
) -> Estimate:
    """The estimates for one statistic; errors, gains: as in `results.SizeResult`."""
    over_restarts = STATISTICS[statistic]
    values = {kind: {f: over_restarts(each[f]) for f in FAMILIES} for kind, each in errors.items()}

    def intervals(kind: str) -> dict[str, Interval]:
        return {family: confidence_interval(values[kind][family], confidence) for family in FAMILIES}

    def movement(family: str) -> Interval | None:
        half = over_restarts(errors["half"][family], HOPELESS)
        whole = over_restarts(errors["fresh"][family][: len(half)], HOPELESS)
        return confidence_interval(half - whole, confidence) if len(half) else None

    def polish(family: str) -> Interval | None:
        after = errors["polished"][family]
        rows, columns = after.shape
        before = errors["fresh"][family][:rows, :columns]
        if not len(after) or after.isnan().all():
            return None
        after = torch.where(after.isnan(), before, after)  # where it could not go on
        return confidence_interval(over_restarts(before, HOPELESS) - over_restarts(after, HOPELESS), confidence)

    stuck = {family: (values["fresh"][family] >= WORST).double().mean().item() for family in FAMILIES}
    optima = {f: values["optimum"][f].mean().item() if len(values["optimum"][f]) else None for f in FAMILIES}
    return Estimate(
        statistic,
        len(values["fresh"]["A"]),
        intervals("fresh"),
        {family: values["training"][family].mean().item() for family in FAMILIES},
        confidence_interval(values["fresh"]["A"] - values["fresh"]["B"], confidence),
        intervals("floor"),
        {family: movement(family) for family in FAMILIES},
        {family: polish(family) for family in FAMILIES},
        gains,
        stuck,
        optima,
        mutual,
    )
