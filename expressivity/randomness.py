"""Seeds derived from what is drawn, so that no result depends on the order of the draws.

Dropout is the exception: its masks are drawn for all networks that are fitted together.
"""

import copy
import hashlib
import math
from contextlib import contextmanager

import torch
from torch import nn

from expressivity.devices import where_float64_is
from expressivity.errors import ExpressivityError


@contextmanager
def seeded(*key):
    """Context in which torch's global generators are seeded from `key`; their states are restored on exit.

    Sets the generators directly: torch.manual_seed takes as long as building a small network.
    """
    generators = _generators()
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed_of(*key))
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def _generators() -> list[torch.Generator]:
    """torch's global generators: those of the CPU and of all devices in use."""
    devices = [module for module in (torch.cuda, torch.xpu) if module.is_initialized()]
    found = [torch.default_generator, *(each for module in devices for each in module.default_generators)]
    return [*found, torch.mps._get_default_mps_generator()] if torch.backends.mps.is_available() else found


def seed_of(*key) -> int:
    """A seed that depends on all parts of `key` and is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest())


def redrawn(module: nn.Module) -> nn.Module:
    """A copy of `module` with new weights, drawn by `reset_parameters` of its submodules.

    These follow the distribution of the module's `__init__` only if that draws nothing itself.

    Raises ExpressivityError if a submodule has parameters and no `reset_parameters`, or if the mean square of a tensor
    changes by more than chance explains.
    """
    copied = copy.deepcopy(module)
    for name, part in reversed(list(copied.named_modules())):  # parents last: they may override their children
        reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
        if reset is not None:
            reset()
        elif next(part.parameters(recurse=False), None) is not None:
            raise ExpressivityError(
                f"{name or type(part).__name__} has parameters but no reset_parameters(), so it cannot be "
                "re-initialised; give the class and its parameters instead of the module"
            )
    for (name, old), new in zip(module.named_parameters(), copied.parameters(), strict=True):
        before, after = _mean_square(old), _mean_square(new)
        chance = math.exp(0.5 + 12 / math.sqrt(old.numel()))  # more than six standard deviations
        if (before == 0) != (after == 0) or not before / chance <= after <= before * chance:
            raise ExpressivityError(
                f"{name} has a mean square of {before:.3g}, and {after:.3g} after reset_parameters(), so it was "
                "initialised in another way; give the class and its parameters instead of the module"
            )
    return copied


def _mean_square(tensor: torch.Tensor) -> float:
    return where_float64_is(tensor.detach()).double().square().mean().item()
