"""What all modules of adapters have in common, whatever their site."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from torch import nn

Part = TypeVar("Part")


class AdapterPart(nn.Module):
    """A module that an adapter method adds to the backbone.

    Its parameters are trained, but for those with `requires_grad` false when it is built (frozen cores, fixed rules);
    its parameters and buffers make up the adapter's checkpoint.
    component: where a report counts it: "adapters", "norms", "biases" or "prompts".
    """

    component = "adapters"

    def check_loaded(self) -> None:
        """Called after a checkpoint was loaded. Raises ConfigError where its numbers cannot be used here."""


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

    target: name of the layer ("wi", "q", "EncDecAttention.q", ..). layer: number of the block, the decoder's after the
    encoder's. layers: how many blocks there are. targets: the names of all layers that get branches.
    """

    target: str = "wi"
    layer: int = 0
    layers: int = 1
    targets: tuple[str, ...] = ("wi",)
