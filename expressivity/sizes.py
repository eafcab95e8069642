"""How large a network is: the number of its trainable parameters, or the bits of its weights."""

import torch
from torch import nn

from expressivity.errors import ExpressivityError


def trainable_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def information(network: nn.Module) -> int:
    """Bits that it takes to store what a network has learned.

    A module that knows better, such as a quantised layer, has a method `information_bits()`, which speaks for it and
    all that it contains. Of any other module the trainable parameters count with the bits of their dtype, and so do
    persistent buffers that hold weights, by their names. Shared tensors count once.

    Raises ExpressivityError if information_bits() returns no whole number, at least 0.
    """
    return _information(network, set())


def _information(module: nn.Module, counted: set[int]) -> int:
    if id(module) in counted:
        return 0
    counted.add(id(module))
    declared = getattr(module, "information_bits", None)
    if callable(declared):
        bits = declared()
        if not isinstance(bits, int) or isinstance(bits, bool) or bits < 0:
            raise ExpressivityError(
                f"information_bits() of {type(module).__name__} returned {bits!r}; it must be a whole number, 0 or more"
            )
        counted |= {id(tensor) for tensor in module.parameters()}
        return bits
    own = [p for p in module.parameters(recurse=False) if p.requires_grad]
    kept = module.state_dict(keep_vars=True).keys()
    own += [each for name, each in module.named_buffers(recurse=False) if name in kept and _holds_weights(name, each)]
    fresh = [tensor for tensor in own if id(tensor) not in counted]
    counted |= {id(tensor) for tensor in fresh}
    return sum(map(_bits, fresh)) + sum(_information(child, counted) for child in module.children())


def _holds_weights(name: str, buffer: torch.Tensor) -> bool:
    """A real buffer beside a weight, such as the weight_u of a spectral norm, is derived from it."""
    return name.endswith("weight") or ("weight" in name and not buffer.is_floating_point())


def _bits(tensor: torch.Tensor) -> int:
    return 8 * tensor.element_size() * tensor.numel()


COUNTED = {"information": information, "parameters": trainable_parameters}
UNITS = {"information": "bits", "parameters": "trainable parameters"}


def bytes_of_step(network: nn.Module, x: torch.Tensor) -> int:
    """Bytes that a training step of one network takes.

    Counts trainable parameters with gradients and two moments, and the tensors that autograd saves for the backward
    pass from x.
    """
    kept = [16 * trainable_parameters(network)]

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel() * tensor.element_size())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        network(x)
    return sum(kept)
