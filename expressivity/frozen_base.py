"""One frozen base for all networks that are compared on a target."""

import torch
from torch import nn

from expressivity.errors import ExpressivityError
from expressivity.randomness import seeded
from expressivity.spaces import ArchitecturalSpace


@torch.no_grad()
def share_frozen(space: ArchitecturalSpace, index: int, network: nn.Module, *key) -> None:
    """Replace the frozen tensors of a network by those that `key` determines, so that equal keys give equal bases.

    space, index: the space and the size of which `network` is a member.
    network: its parameters that are not trained are overwritten, and its floating-point buffers; tables of indices
        belong to the structure and stay.
    key: what the base depends on, such as the seed and the number of the target.

    For the same key, two spaces have the same base if their classes draw it first, as AdaptedNetwork does.

    Raises ExpressivityError if nothing in the network is frozen.
    """
    with seeded("frozen", *key):
        other = space.build(index)
    if all(parameter.requires_grad for parameter in network.parameters()):
        raise ExpressivityError(
            f"{space.where(index)}: frozen_base is true, but all parameters are trained; call requires_grad_(False) on "
            "those of the base, or use adapted_network"
        )
    for own, new in zip(network.parameters(), other.parameters(), strict=True):
        if not own.requires_grad:
            own.copy_(new)
    for own, new in zip(network.buffers(), other.buffers(), strict=True):
        if own.is_floating_point():
            own.copy_(new)
