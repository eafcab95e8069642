"""Base classes and helpers common to the modules of all adapter methods."""

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO, TypeVar

import torch

from adapters.precision import Float32Tensors
from common.errors import warn_once
from t3nsor import ShapeWarning

Part = TypeVar("Part")


class AdapterPart(Float32Tensors):
    """Base class of the modules that an adapter method adds to the backbone.

    Its parameters are trained, except those built with `requires_grad` false (frozen cores, fixed rules). All its
    parameters and buffers are saved in the adapter's checkpoint. In half precision all stay float32.
    component: the row of the parameter table that counts it: "adapters", "norms", "biases" or "prompts".
    """

    component = "adapters"

    def check_saved(self, saved: Mapping[torch.Tensor, torch.Tensor]) -> None:
        """Raise ConfigError if a checkpoint cannot be used here.

        saved: this module's tensors -> the tensors loaded for them.
        """


@dataclass
class SharedParts:
    """Parameters and modules that several layers of one model share; used only while adapters are attached."""

    parts: dict[Hashable, Any] = field(default_factory=dict)

    def get(self, key: Hashable, build: Callable[[], Part]) -> Part:
        """Return the part called `key`; the first layer that asks for it builds it."""
        if key not in self.parts:
            self.parts[key] = build()
        return self.parts[key]


@dataclass(frozen=True)
class Place:
    """The position in the model of the linear layer that a branch is added to.

    Two layers are alike if they have the same sizes, in either order (wi and wo).
    target: name of the layer ("wi", "q", "EncDecAttention.q", ..).
    layer: index of its block among the blocks that contain alike layers with branches.
    layers: number of those blocks.
    targets: names of all alike layers with branches.
    task: name of the task's module if each task has its own branches, otherwise None.
    """

    target: str = "wi"
    layer: int = 0
    layers: int = 1
    targets: tuple[str, ...] = ("wi",)
    task: str | None = None


@contextmanager
def saying_shape_warnings(key: str) -> Iterator[None]:
    """Print each ShapeWarning of the block once per process, behind the key that it is about.

    Nothing is said about layers without values: they are built to find out whether those with values can be.
    """
    with warnings.catch_warnings():
        show = warnings.showwarning

        def say(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ShapeWarning):
                if torch.get_default_device().type != "meta":
                    warn_once(f"{key}: {message}")
            else:
                show(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", ShapeWarning)
        warnings.showwarning = say
        yield


def module_name(task: str) -> str:
    """The name of a task's module: unlike a task (superglue-wsc.fixed) without a dot, and no method of a module."""
    name = task.replace(".", "_")
    return f"{name}_" if hasattr(torch.nn.ModuleDict, name) else name
