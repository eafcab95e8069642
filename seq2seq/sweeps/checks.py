"""What a sweep cannot have in its keys, grids and published scores."""

import json
import math
from collections.abc import Mapping
from typing import Any

from common.errors import ConfigError
from seq2seq.sweeps.spaces import not_finite

# Keys of a run that the sweep sets, and the key of the sweep to use instead.
SET_BY_SWEEP = {
    "seed": "seeds",
    "seeds": "seeds",
    "task_name": "tasks",
    "output_dir": "output_dir",
    "experiment_name": "the name of a configuration",
    "overwrite_output_dir": "another output_dir",
    "resume_from_checkpoint": "another output_dir",
    "dry_run": "dry_run",
    "do_train": "do_train of run_seq2seq.py",
    "do_test": "do_test of run_seq2seq.py",
}


def check_own(keys: Mapping[str, Any] | None, place: str) -> None:
    """Raise ConfigError for a key that the sweep sets itself."""
    for name in keys or ():
        if name in SET_BY_SWEEP:
            raise ConfigError(f"{place} sets {name}, which the sweep sets itself; use {SET_BY_SWEEP[name]}")


def is_finite_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def check_grid(grid: Mapping[str, Any] | None, place: str) -> None:
    """Raise ConfigError unless each key has a list of different values."""
    for name, values in (grid or {}).items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{place}: {name} is {json.dumps(values)}; it must be a list of values")
        if any(value in values[:i] for i, value in enumerate(values)):
            raise ConfigError(f"{place}: {name} has a value twice: {json.dumps(values)}")
        if not_finite(values):
            raise ConfigError(f"{place}: {name} contains a number that is not finite")
