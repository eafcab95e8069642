"""What a campaign is, and how one of its trials may end."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REFUSED, IDENTICAL, WRONG, TRACEBACK = "refused", "identical", "wrong", "traceback"


@dataclass(frozen=True)
class Outcome:
    """The verdict on one trial.

    verdict: "refused": in one line, with nothing lost. "identical": what came out is what an undisturbed run gives.
        "wrong": success was reported and something differs, or something was lost. "traceback": a Python traceback, a
        crash, several lines where one should stand, or no end within the time limit.
    what: what was tried, and what was seen.
    """

    verdict: str
    what: str


@dataclass(frozen=True)
class Trial:
    """One trial of a campaign.

    random: the source of all its choices; it depends on the seed, the campaign and the number alone.
    directory: an empty directory for it.
    reference: what `prepare` has made for all trials of all campaigns.
    """

    number: int
    random: random.Random
    directory: Path
    reference: Path


@dataclass(frozen=True)
class Campaign:
    """A campaign: many trials of one kind.

    name: for `--only`. title: for the table.
    trials, quick: how many there are, and how many with `--quick`.
    attempt: carries out one trial, in a process of its own.
    """

    name: str
    title: str
    trials: int
    quick: int
    attempt: Callable[[Trial], Outcome]
