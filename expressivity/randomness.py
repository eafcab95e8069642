"""Every draw has a seed of its own, made from what is drawn: no result depends on the order of the draws.

Dropout is the exception: its draws are those of all the networks that are fitted together.
"""

import copy
import hashlib
import math
from contextlib import contextmanager

import torch
from torch import nn

from expressivity.errors import ExpressivityError


@contextmanager
def seeded(*key):
    """Inside, torch's global generators start from a seed made of `key`; outside, they go on as if nothing had been.

    torch.manual_seed would do the same, and takes as long as making a small network.
    """
    generators = [torch.default_generator]
    if torch.cuda.is_initialized():
        generators.append(torch.cuda.default_generators[torch.cuda.current_device()])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed_of(*key))
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def seed_of(*key) -> int:
    """A seed that depends on every part of `key`, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=7).digest())


def redrawn(module: nn.Module) -> nn.Module:
    """A copy of `module` with new weights, by the `reset_parameters` of its parts.

    That is the law of its `__init__` only where this draws nothing itself. ExpressivityError where it visibly does: a
    part with parameters of its own and no `reset_parameters`, or a tensor whose size is another after the drawing.
    """
    copied = copy.deepcopy(module)
    for name, part in reversed(list(copied.named_modules())):  # a whole may overrule its parts
        reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
        if reset is not None:
            reset()
        elif next(part.parameters(recurse=False), None) is not None:
            raise ExpressivityError(
                f"{name or type(part).__name__} has parameters and no reset_parameters(), so that it cannot be drawn "
                "again; give the class and its parameters instead of the module"
            )
    for (name, old), new in zip(module.named_parameters(), copied.parameters(), strict=True):
        before, after = _size(old), _size(new)
        chance = math.exp(0.5 + 12 / math.sqrt(old.numel()))  # more than six standard deviations
        if (before == 0) != (after == 0) or not before / chance <= after <= before * chance:
            raise ExpressivityError(
                f"{name} has a mean square of {before:.3g}, and {after:.3g} when reset_parameters() draws it: its law "
                "is set elsewhere; give the class and its parameters instead of the module"
            )
    return copied


def _size(tensor: torch.Tensor) -> float:
    return tensor.detach().double().square().mean().item()
