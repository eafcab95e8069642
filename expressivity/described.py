"""Descriptions of settings that are the same in every process, by which a saved comparison is recognised."""

import functools
import inspect
import re

import torch
from torch import nn

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
        return f"{value!r}({described(options | dict(value.named_buffers()))})"
    name = getattr(value, "__qualname__", None)
    if name is not None:
        return f"{value.__module__}.{name}{_body(value) if '<' in name else ''}"
    if hasattr(value, "__dict__") and not inspect.ismodule(value):
        return f"{type(value).__qualname__}({described(vars(value))})"
    return re.sub(r" at 0x\w+", "", repr(value))


def _body(function) -> str:
    """What tells functions apart that have no name of their own: their code, and the values that it encloses."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    enclosed = [cell.cell_contents for cell in function.__closure__ or ()]
    constants = [each for each in code.co_consts if isinstance(each, int | float | str)]
    return f"({code.co_code.hex()}, {code.co_names}, {constants}, {described(enclosed)})"
