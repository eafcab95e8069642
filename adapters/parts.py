"""What all modules of adapters have in common, whatever their site."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn

Part = TypeVar("Part")


class AdapterPart(nn.Module):
    """A module that an adapter method adds to the backbone.

    Its parameters are trained, but for those with `requires_grad` false when it is built (frozen cores, fixed rules);
    its parameters and buffers make up the adapter's checkpoint.
    component: where a report counts it: "adapters", "norms", "biases" or "prompts".
    """

    component = "adapters"

    def check_saved(self, saved: Mapping[torch.Tensor, torch.Tensor]) -> None:
        """Raise ConfigError where a checkpoint cannot be used here. saved: own tensor -> the one in the file."""


@dataclass
class SharedParts:
    """Parameters and modules that several layers of one model have in common; it lives while adapters are attached."""

    parts: dict = field(default_factory=dict)

    def get(self, key, build: Callable[[], Part]) -> Part:
        """The part called `key`, built by the first layer that asks for it."""
        if key not in self.parts:
            self.parts[key] = build()
        return self.parts[key]


@dataclass(frozen=True)
class Place:
    """Which linear layer of the model a branch stands beside.

    target: name of the layer ("wi", "q", "EncDecAttention.q", ..). targets: the names of all layers with branches that
    have the same two sizes, in this order or the other. layer: number of its block among those where such layers are.
    layers: how many these are.
    """

    target: str = "wi"
    layer: int = 0
    layers: int = 1
    targets: tuple[str, ...] = ("wi",)
