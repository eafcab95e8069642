"""Descriptions of settings that are the same in every process, by which a saved comparison is recognised."""

import functools
import re

import torch
from torch import nn
from torch.distributions import Distribution

from expressivity.spaces import ALLOWED, ArchitecturalSpace

KEYS = ("name", "input_size", "architecture", "parameters", "optimizer", "train", "lr_candidates", *ALLOWED)


def settings_of(space: ArchitecturalSpace) -> dict[str, str]:
    """The settings of a space that affect results."""
    return {key: described(getattr(space, key)) for key in (*KEYS, "frozen_base", "legacy")}


def described(value) -> str:
    """A description of a value, without addresses."""
    if isinstance(value, torch.Tensor):
        return f"{value.dtype}{value.tolist()}"
    if isinstance(value, dict):
        return ", ".join(f"{key}={described(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(described, value))}]"
    if isinstance(value, functools.partial):
        return f"{described(value.func)}({described(value.args)}, {described(value.keywords)})"
    if isinstance(value, nn.Module):  # weights are re-initialised anyway; options may be missing from its repr
        options = {key: each for key, each in vars(value).items() if isinstance(each, int | float | str)}
        return f"{value!r}({described(options)})"
    if isinstance(value, Distribution):
        return f"{type(value).__qualname__}({described(vars(value))})"
    name = getattr(value, "__qualname__", None)
    return f"{value.__module__}.{name}" if name else re.sub(r" at 0x\w+", "", repr(value))
