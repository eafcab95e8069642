"""The private parts of torch that the engine uses, and why. Tested with torch 2.13."""

import torch
from torch.autograd import forward_ad

is_exporting = getattr(torch.compiler, "is_exporting", lambda: False)  # torch 2.6 cannot tell


def in_transform() -> bool:
    """True inside `forward_ad.dual_level`, a transform of torch.func, or a trace.

    No public function tells of the first two: `forward_ad.unpack_dual` answers for one tensor, at a cost that shows in
    small products; for the other it is the test of `torch.autograd.Function.apply`. A Function with `setup_context`
    would work in most of them, but takes as long to call as a small product.
    """
    forward_mode = forward_ad._current_level >= 0
    return forward_mode or torch._C._are_functorch_transforms_active() or torch._C._is_tracing()


def is_legacy_batched(tensor: torch.Tensor) -> bool:
    """True for a gradient of `torch.autograd.grad(.., is_grads_batched=True)`.

    Such a tensor stands for a batch that no public function reveals, and cannot be written into.
    """
    return torch._C._functorch.is_legacy_batchedtensor(tensor)
