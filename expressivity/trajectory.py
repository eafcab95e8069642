"""How a network bends and stretches a curve, layer by layer (Raghu et al. 2017, https://arxiv.org/abs/1606.05336)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.errors import ExpressivityError

POINTS_AT_ONCE = 4096


@dataclass(frozen=True)
class LayerTrajectory:
    """The image of a curve in one layer.

    length: of the polygon through the images. growth: length over that of the layer before, or of the input.
    transitions: how often an entry changes its sign along the curve, summed over the entries of the layer.
    patterns: how many sign patterns of the whole layer the curve meets.
    """

    name: str
    length: float
    growth: float
    transitions: int
    patterns: int


def circle(points: int, width: int, radius: float | None = None, seed: int = 0) -> torch.Tensor:
    """A circle around 0 in a random plane, (points + 1, width), the last point being the first.

    radius: None: sqrt(width), which gives the entries a mean square of 1.
    """
    if width < 2 or points < 2:
        raise ExpressivityError(f"a circle of {points} points in {width} dimensions; both must be 2 at least")
    generator = torch.Generator().manual_seed(seed)
    plane, _ = torch.linalg.qr(torch.randn(width, 2, generator=generator, dtype=torch.float64))
    angles = torch.linspace(0, 2 * torch.pi, points + 1, dtype=torch.float64)
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    return ((width**0.5 if radius is None else radius) * directions @ plane.T).to(torch.get_default_dtype())


def trajectory(network: nn.Module, curve: torch.Tensor, layers: list[str] | None = None) -> list[LayerTrajectory]:
    """What becomes of `curve` in each of the `layers`.

    curve: (points, *input_size), neighbours on the curve being neighbours in the tensor; it is sent through in pieces,
        in evaluation mode.
    layers: names of submodules, in the order of the calls; None: all that contain no others, as they were registered.
        Each must be called once and give a tensor (points, ..).
    Raises ExpressivityError, naming the layer.
    """
    if curve.dim() < 2 or len(curve) < 2:
        raise ExpressivityError(f"a curve is (points, *input_size), 2 points at least; this is {tuple(curve.shape)}")
    modules = dict(network.named_modules())
    if layers is None:
        layers = [name for name, module in modules.items() if name and next(module.children(), None) is None]
    for name in layers:
        if name not in modules:
            raise ExpressivityError(f"the network has no layer {name!r}; it has {', '.join(filter(None, modules))}")
    totals = {name: _Total() for name in layers}
    before = _Total()
    for piece in _overlapping(curve):
        before.add(piece)
        for name, image in _images(network, modules, layers, piece).items():
            totals[name].add(image)
    found, length = [], before.length
    for name, total in totals.items():
        found.append(total.layer(name, length))
        length = total.length
    return found


def mean_growth(layers: list[LayerTrajectory], first: int, last: int) -> float:
    """The factor per layer by which the length grows from layer `first` to layer `last`, counted from 1."""
    if not 1 <= first < last <= len(layers):
        raise ExpressivityError(f"growth from layer {first} to {last} of {len(layers)}; layers are counted from 1")
    if not (layers[first - 1].length and layers[last - 1].length):
        raise ExpressivityError("the curve shrinks to a point: its length is 0, and no growth can be told")
    return (layers[last - 1].length / layers[first - 1].length) ** (1 / (last - first))


class _Total:
    """Sums over the pieces of a curve."""

    def __init__(self):
        self.length, self.transitions, self.patterns = 0.0, 0, set()

    def add(self, image: torch.Tensor) -> None:
        """image: (points, ..), whose first point is the last of the piece before."""
        flat = image.flatten(1)
        self.length += torch.linalg.vector_norm(flat.diff(dim=0), dim=1).sum(dtype=torch.float64).item()
        positive = flat > 0
        changed = positive[1:] != positive[:-1]
        self.transitions += int(changed.sum())
        self.patterns.update(_hashes(positive[:1]) + _hashes(positive[1:][changed.any(1)]))

    def layer(self, name: str, before: float) -> LayerTrajectory:
        growth = self.length / before if before else float("nan")
        return LayerTrajectory(name, self.length, growth, self.transitions, len(self.patterns))


def _hashes(positive: torch.Tensor) -> list[int]:
    """One number for each row of signs; two patterns share one with a probability of 2^-64."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-(2**63), 2**63 - 1, (positive.shape[1],), generator=generator).to(positive.device)
    return torch.where(positive, codes, 0).sum(1).unique().tolist()


def _overlapping(curve: torch.Tensor) -> Iterator[torch.Tensor]:
    """Pieces, each beginning with the last point of the one before."""
    for start in range(0, len(curve) - 1, POINTS_AT_ONCE):
        yield curve[start : start + POINTS_AT_ONCE + 1]


def _images(network: nn.Module, modules: dict, layers: list[str], piece: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each layer makes of a piece of the curve."""
    images: dict[str, torch.Tensor] = {}

    def keep(name: str) -> Callable:
        def hook(module, inputs, output):
            if name in images:
                raise ExpressivityError(f"the layer {name!r} is called more than once; name layers that are not")
            if not isinstance(output, torch.Tensor) or len(output) != len(piece):
                raise ExpressivityError(f"the layer {name!r} gives no tensor with one row for each point")
            images[name] = output.clone()  # the next layer may work in place

        return hook

    hooks = [modules[name].register_forward_hook(keep(name)) for name in layers]
    training = [(module, module.training) for module in network.modules()]
    try:
        with torch.no_grad():
            network.eval()(piece.clone())
    except ExpressivityError:
        raise
    except Exception as error:
        size = tuple(piece.shape[1:])
        raise ExpressivityError(f"the network does not take points of size {size}: {type_and_line(error)}") from error
    finally:
        for module, mode in training:
            module.training = mode
        for hook in hooks:
            hook.remove()
    for name in layers:
        if name not in images:
            raise ExpressivityError(f"the layer {name!r} is not called")
        if not torch.isfinite(images[name]).all():
            raise ExpressivityError(f"the layer {name!r} gives values that are not finite")
    return images
