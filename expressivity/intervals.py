"""Confidence intervals that hold simultaneously at all sample sizes, and so under any stopping rule."""

import math
from dataclasses import dataclass

import torch

EFFECT_VARIANCE = 1.0  # variance of the prior on mean / standard deviation; intervals are narrowest for such effects


@dataclass(frozen=True)
class Interval:
    """A mean with its confidence interval [low, high]."""

    mean: float
    low: float
    high: float

    @property
    def width(self) -> float:
        return self.high - self.low

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def confidence_interval(values: torch.Tensor, confidence: float = 0.95) -> Interval:
    """Confidence interval for the mean of independent observations, valid at any stopping time.

    values: (n,), the observations.
    confidence: P(low <= mean <= high for all n) is at least this, whatever the stopping rule.

    An ordinary t interval that is checked repeatedly until it looks right covers less than it claims. This one inverts
    the t test with a normal prior on mean / standard deviation. Its evidence is a martingale, which ever exceeds
    1 / (1 - confidence) with probability at most 1 - confidence. Lai 1976, "On confidence sequences"; Wang and Ramdas
    2023, https://arxiv.org/abs/2310.03722.

    Exact for normal observations. For others the coverage is approximate until their mean is nearly normal: checked
    from n = 32 on, a nominal 95% is 97% for exponential and 93% for log-normal observations, and far less where rare
    values dominate the mean. The interval is infinite for few observations.
    """
    n, mean = len(values), values.double().mean().item()
    k = 1 + n * EFFECT_VARIANCE
    ratio = (math.sqrt(k) / (1 - confidence)) ** (2 / n) if n > 1 else math.inf
    if ratio >= k:
        return Interval(mean, -math.inf, math.inf)
    t = math.sqrt((n - 1) * (ratio - 1) / (1 - ratio / k))
    half = t * values.double().std().item() / math.sqrt(n)
    return Interval(mean, mean - half, mean + half)
