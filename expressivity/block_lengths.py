"""Trajectory lengths of an adapted network beside those of its backbone, block by block, for the same curves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from expressivity.errors import ExpressivityError
from expressivity.trajectory import trajectory


@dataclass(frozen=True)
class BlockLengths:
    """Lengths of the images of some curves behind one block.

    block: its name.
    adapted, backbone: mean length over the curves in the adapted network, and in its backbone.
    adapted_growth, backbone_growth: that length relative to the one before the block; None for the first block of a
        stack that does not read the curve itself.
    ratio: mean over the curves of adapted / backbone.
    ratio_error: standard error of `ratio`; None of a single curve.
    """

    block: str
    adapted: float
    backbone: float
    adapted_growth: float | None
    backbone_growth: float | None
    ratio: float
    ratio_error: float | None


def closed_curve(first: torch.Tensor, second: torch.Tensor, points: int) -> torch.Tensor:
    """The curve cos(t) a + sin(t) b for t from 0 to 2 pi, which passes through a, b, -a and -b: (points + 1, *size).

    first, second: a and b before both are scaled to their mean norm, two inputs of the same size.
    points: number of distinct points; the last one equals the first.

    Raises ExpressivityError if the sizes differ, or if one of the inputs is 0 or not finite.
    """
    if first.shape != second.shape:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ExpressivityError(f"the inputs have the shapes {shapes}; they must be equal")
    norms = torch.stack([torch.linalg.vector_norm(each.double()) for each in (first, second)])
    if not norms.isfinite().all() or not norms.all():
        raise ExpressivityError("an input is 0 or not finite, so there is no curve through it")
    a, b = (each.double() * norms.mean() / norm for each, norm in zip((first, second), norms, strict=True))
    angles = torch.linspace(0, 2 * torch.pi, points + 1, dtype=torch.float64, device=first.device)
    angles = angles.reshape(-1, *[1] * first.dim())
    return (angles.cos() * a + angles.sin() * b).to(first.dtype)


def block_lengths(
    adapted: nn.Module,
    backbone: nn.Module,
    curves: Sequence[torch.Tensor],
    stacks: Sequence[dict[str, str]],
    step: Callable[[], object] = lambda: None,
) -> list[BlockLengths]:
    """Measure the images of `curves` behind each block of two networks.

    adapted, backbone: the networks; both have the modules that `stacks` names.
    curves: each (points, *input_size), in order along the curve.
    stacks: block -> name of the module that returns its image, for each stack of blocks; the first one reads the curve.
    step: called after each curve in each network.

    Raises ExpressivityError if a network cannot be measured, or if an image in the backbone is a single point.
    """
    modules = {block: module for stack in stacks for block, module in stack.items()}

    def lengths(network: nn.Module, curve: torch.Tensor) -> list[float]:
        found = [layer.length for layer in trajectory(network, curve, list(modules.values()))]
        step()
        return found

    # (networks, curves, blocks)
    whole = torch.tensor([[lengths(network, curve) for curve in curves] for network in (adapted, backbone)]).double()
    for place, block in enumerate(modules):
        if not whole[1, :, place].all():
            raise ExpressivityError(f"behind {block}, the curve is a single point in the backbone")
    means, ratios = whole.mean(1), whole[0] / whole[1]
    start = sum(torch.linalg.vector_norm(c.flatten(1).diff(dim=0), dim=1).sum().item() for c in curves) / len(curves)
    growth = means / torch.cat([torch.full((2, 1), start), means[:, :-1]], dim=1)
    first_of_others = {next(iter(stack)) for stack in stacks[1:]}
    return [
        BlockLengths(
            block,
            *means[:, place].tolist(),
            *([None, None] if block in first_of_others else growth[:, place].tolist()),
            ratios[:, place].mean().item(),
            ratios[:, place].std().item() / math.sqrt(len(curves)) if len(curves) > 1 else None,
        )
        for place, block in enumerate(modules)
    ]
