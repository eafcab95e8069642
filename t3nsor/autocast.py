"""Casts that torch.autocast asks for, and a context without it."""

from contextlib import AbstractContextManager, nullcontext
from typing import overload

import torch

# Asked once, as torch.compile of torch 2.11 does not trace the question.
_KINDS = [kind for kind in ("cpu", "cuda", "xpu", "mps", "hpu", "mtia") if torch.amp.is_autocast_available(kind)]


def without_autocast(device: torch.device) -> AbstractContextManager:
    """Return a context in which autocast is off: it would round products of cores one by one."""
    return nullcontext() if autocast_dtype(device) is None else torch.autocast(device.type, enabled=False)


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype in which autocast computes on `device`; None where it is off."""
    kind = device.type
    return torch.get_autocast_dtype(kind) if kind in _KINDS and torch.is_autocast_enabled(kind) else None


@overload
def in_autocast_dtype(x: torch.Tensor) -> torch.Tensor: ...
@overload
def in_autocast_dtype(x: torch.Tensor | None) -> torch.Tensor | None: ...
def in_autocast_dtype(x):
    """Cast x as autocast would; float64 and integers stay as they are."""
    if x is None or x.dtype == torch.float64 or not x.is_floating_point():
        return x
    dtype = autocast_dtype(x.device)
    return x if dtype is None else x.to(dtype)
