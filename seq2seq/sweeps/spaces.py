"""Search spaces: lists of values, and ranges to draw from."""

import json
import math
import random
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from common.errors import ConfigError

RANGES = ("uniform", "log_uniform", "integer")
MOST = 10_000  # combinations, or draws
LARGEST = 1e300  # bound of a range


def check_space(space: Mapping[str, Any], trials: int | None) -> None:
    """Raise ConfigError unless each key has a list of values or a range, and lists only if nothing is drawn."""
    for name, values in space.items():
        if isinstance(values, list) and not_finite(values):
            raise ConfigError(f"space: {name} contains a number that is not finite")
        if isinstance(values, list) and values and not any(value in values[:i] for i, value in enumerate(values)):
            continue
        if isinstance(values, dict) and len(values) == 1 and next(iter(values)) in RANGES:
            _check_range(name, values)
            if trials is None:
                raise ConfigError(f"space: {name} is a range, from which values are drawn; set choose.trials")
            continue
        raise ConfigError(
            f"space: {name} is {json.dumps(values)}; it must be a list of different values, or a range such as "
            '{"log_uniform": [0.0001, 0.01]}, of the kind uniform, log_uniform or integer'
        )
    if trials is None and math.prod(len(values) for values in space.values()) > MOST:
        raise ConfigError(f"space has more than {MOST:,} combinations; set choose.trials to draw some of them")
    if (trials or 0) > MOST:
        raise ConfigError(f"trials is {trials}; it must be at most {MOST}")


def not_finite(values: list) -> bool:
    """Return True if one of the values is NaN or infinite."""
    return any(isinstance(value, float) and not math.isfinite(value) for value in values)


def _check_range(name: str, values: Mapping[str, Any]) -> None:
    (kind, bounds), whole = next(iter(values.items())), "integer" in values
    numbers = isinstance(bounds, list) and len(bounds) == 2 and all(type(b) in (int, float) for b in bounds)
    if not numbers or not all(abs(bound) < LARGEST for bound in bounds) or not bounds[0] < bounds[1]:
        raise ConfigError(f"space: {kind} of {name} is {json.dumps(bounds)}; it must be [low, high], low below high")
    if kind == "log_uniform" and bounds[0] <= 0:
        raise ConfigError(f"space: log_uniform of {name} begins at {bounds[0]}; it must begin above 0")
    if whole and not all(type(b) is int for b in bounds):
        raise ConfigError(f"space: integer of {name} is {json.dumps(bounds)}; it must have whole numbers")


def candidates(space: Mapping[str, Any], trials: int | None, seed: int) -> list[dict[str, Any]]:
    """Return the values to try: every combination, or as many different random draws as `trials` says.

    The draws depend on the seed alone. Fewer are returned if the space does not have as many values.
    """
    counts = [_count(values) for values in space.values()]
    if trials is None or math.inf not in counts and math.prod(counts) <= trials:
        listed = [values if isinstance(values, list) else _integers(values) for values in space.values()]
        return [dict(zip(space, values, strict=True)) for values in product(*listed)]
    generator, found = random.Random(seed), {}
    for _ in range(100 * trials):  # a space of few floats may have less
        draw = {name: _drawn(values, generator) for name, values in space.items()}
        found.setdefault(json.dumps(draw), draw)
        if len(found) == trials:
            break
    return [*found.values()]


def _count(values: Any) -> float:
    """Return the number of values of a list or of a range of integers; infinity for others."""
    if isinstance(values, list):
        return len(values)
    return values["integer"][1] - values["integer"][0] + 1 if "integer" in values else math.inf


def _integers(values: Mapping[str, Any]) -> Sequence[int]:
    low, high = values["integer"]
    return range(low, high + 1)


def _drawn(values: Any, generator: random.Random) -> Any:
    if isinstance(values, list):
        return generator.choice(values)
    kind, (low, high) = next(iter(values.items()))
    if kind == "integer":
        return generator.randint(low, high)
    if kind == "uniform":
        return generator.uniform(low, high)
    return math.exp(generator.uniform(math.log(low), math.log(high)))
