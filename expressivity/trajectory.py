"""Trajectory length: how a network bends and stretches a curve, layer by layer.

Raghu et al. 2017, https://arxiv.org/abs/1606.05336.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.devices import where_float64_is
from expressivity.errors import ExpressivityError

POINTS_AT_ONCE, ENTRIES_AT_ONCE = 4096, 2**22  # of the curve; layers of about its width then fit into memory


@dataclass(frozen=True)
class LayerTrajectory:
    """Properties of the image of a curve in one layer.

    name: name of the layer.
    length: length of the polygon through the images of the points.
    growth: length relative to that in the previous layer, or of the input.
    transitions: number of sign changes along the curve, summed over the entries of the layer.
    patterns: number of distinct sign patterns of the layer along the curve.
    """

    name: str
    length: float
    growth: float
    transitions: int
    patterns: int


def circle(points: int, width: int, radius: float | None = None, seed: int = 0) -> torch.Tensor:
    """A circle around 0 in a random plane, as a closed curve (points + 1, width) whose last point equals the first.

    points: number of distinct points.
    width: dimension of the space.
    radius: None: sqrt(width), with which the entries have mean square 1.
    seed: seed of the plane.

    Raises ExpressivityError if points or width is less than 2.
    """
    if width < 2 or points < 2:
        raise ExpressivityError(f"points is {points} and width is {width}; both must be at least 2")
    generator = torch.Generator().manual_seed(seed)
    plane, _ = torch.linalg.qr(torch.randn(width, 2, generator=generator, dtype=torch.float64))
    angles = torch.linspace(0, 2 * torch.pi, points + 1, dtype=torch.float64)
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    return ((width**0.5 if radius is None else radius) * directions @ plane.T).to(torch.get_default_dtype())


def trajectory(network: nn.Module, curve: torch.Tensor, layers: list[str] | None = None) -> list[LayerTrajectory]:
    """Measure the image of `curve` in each of the `layers`.

    network: the network; it runs in evaluation mode, and its mode is restored.
    curve: (points, *input_size), in order along the curve; it passes through the network in pieces.
    layers: names of submodules in the order in which they are called; None: all submodules without children, in order
        of registration. Each must be called exactly once and return a tensor (points, ..).

    Raises ExpressivityError if the curve, a layer or its output is invalid.
    """
    if curve.dim() < 2 or len(curve) < 2:
        raise ExpressivityError(
            f"curve has shape {tuple(curve.shape)}; it must be (points, *input_size) with at least 2 points"
        )
    modules = dict(network.named_modules())
    if layers is None:
        layers = [name for name, module in modules.items() if name and next(module.children(), None) is None]
    for name in layers:
        if name not in modules:
            raise ExpressivityError(f"the network has no layer {name!r}; it has {', '.join(filter(None, modules))}")
    totals = {name: _Total() for name in layers}
    before = _Total()
    for piece in _pieces(curve):
        before.add(piece)
        for name, image in _images(network, modules, layers, piece).items():
            totals[name].add(image)
    found, length = [], before.length
    for name, total in totals.items():
        found.append(total.layer(name, length))
        length = total.length
    return found


def mean_growth(layers: list[LayerTrajectory], first: int, last: int) -> float:
    """Geometric mean of the growth per layer from layer `first` to layer `last`, counted from 1.

    Raises ExpressivityError if there are no such layers or the length in one of them is 0.
    """
    if not 1 <= first < last <= len(layers):
        raise ExpressivityError(
            f"first is {first} and last is {last}; they must satisfy 1 <= first < last <= {len(layers)}, "
            "the number of layers"
        )
    if not (layers[first - 1].length and layers[last - 1].length):
        raise ExpressivityError("the image of the curve has length 0, so its growth is undefined")
    return (layers[last - 1].length / layers[first - 1].length) ** (1 / (last - first))


class _Total:
    """Running totals over the pieces of a curve."""

    def __init__(self):
        self.length, self.transitions, self.patterns = 0.0, 0, set()

    def add(self, image: torch.Tensor) -> None:
        """Add the image of a piece, (points, ..), whose first point is the last one of the previous piece."""
        flat = image.flatten(1)
        self.length += (
            where_float64_is(torch.linalg.vector_norm(flat.diff(dim=0), dim=1)).sum(dtype=torch.float64).item()
        )
        positive = flat > 0
        changed = positive[1:] != positive[:-1]
        self.transitions += int(changed.sum())
        self.patterns.update(_hashes(positive[:1]) + _hashes(positive[1:][changed.any(1)]))

    def layer(self, name: str, before: float) -> LayerTrajectory:
        growth = self.length / before if before else float("nan")
        return LayerTrajectory(name, self.length, growth, self.transitions, len(self.patterns))


def _hashes(positive: torch.Tensor) -> list[int]:
    """Hashes of the distinct rows of signs; two patterns collide with probability 2^-64."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-(2**63), 2**63 - 1, (positive.shape[1],), generator=generator).to(positive.device)
    return torch.where(positive, codes, 0).sum(1).unique().tolist()


def _pieces(curve: torch.Tensor) -> Iterator[torch.Tensor]:
    """Pieces of the curve, each beginning with the last point of the previous one."""
    at_once = max(1, min(POINTS_AT_ONCE, ENTRIES_AT_ONCE // max(1, curve[0].numel())))
    for start in range(0, len(curve) - 1, at_once):
        yield curve[start : start + at_once + 1]


@contextmanager
def in_evaluation(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode within a `with` block, and restore the mode of each of its modules."""
    training = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        yield
    finally:
        for module, mode in training:
            module.training = mode


def _images(network: nn.Module, modules: dict, layers: list[str], piece: torch.Tensor) -> dict[str, torch.Tensor]:
    """Images of a piece of the curve by layer."""
    images: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(module, inputs, output):
            if name in images:
                raise ExpressivityError(f"layer {name!r} is called more than once; choose layers that are called once")
            if not isinstance(output, torch.Tensor) or len(output) != len(piece):
                raise ExpressivityError(f"layer {name!r} does not return a tensor with one row per point")
            images[name] = output.clone()  # the next layer may modify it in place

        return hook

    hooks = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        with torch.no_grad(), in_evaluation(network):
            network(piece.clone())
    except ExpressivityError:
        raise
    except Exception as error:
        size = tuple(piece.shape[1:])
        raise ExpressivityError(f"the network does not accept points of size {size}: {type_and_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()
    for name in layers:
        if name not in images:
            raise ExpressivityError(f"layer {name!r} is never called; choose layers that are called once")
        if not torch.isfinite(images[name]).all():
            raise ExpressivityError(f"layer {name!r} returned values that are not finite")
    return images
