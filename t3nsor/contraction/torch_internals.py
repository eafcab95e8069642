"""The private parts of torch that the engine uses, and why. Tested with torch 2.13."""

import torch
from torch.autograd import forward_ad

# torch.jit.is_tracing takes longer; torch.is_autocast_enabled does, too, and answers for one device.
is_tracing, is_any_autocast = torch._C._is_tracing, torch._C._is_any_autocast_enabled
is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.6 cannot tell


def in_transform() -> bool:
    """True inside `forward_ad.dual_level`, a transform of torch.func, or a trace: no public function tells.

    A Function with `setup_context` would work in most of them, but takes as long to call as a small product.
    """
    forward_mode = forward_ad._current_level >= 0
    return forward_mode or torch._C._are_functorch_transforms_active() or is_tracing()


def is_legacy_batched(tensor: torch.Tensor) -> bool:
    """True for a gradient of `torch.autograd.grad(.., is_grads_batched=True)`, which cannot be written into."""
    return torch._C._functorch.is_legacy_batchedtensor(tensor)
