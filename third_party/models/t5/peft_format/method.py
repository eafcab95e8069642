"""What a method of peft is to this project: one object that says how names, shapes and keys correspond."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from adapters import AdapterConfig
from common.errors import ConfigError

Tensors = dict[str, torch.Tensor]
Content = dict[str, Any]
Sizes = dict[str, tuple[int, int]]

PREFIX = "base_model.model."
TARGETS = frozenset({"target_modules", "exclude_modules", "modules_to_save"})  # the names of the tensors settle them


def _nothing(*_: Any) -> Content:
    return {}


def _same(name: str, tensor: torch.Tensor, towards_peft: bool) -> torch.Tensor:
    return tensor


@dataclass(frozen=True)
class PeftMethod:
    """A method that peft has as well.

    method: its name in our registry.
    keys_out: (our configuration) -> peft's keys. Raises ConfigError if peft cannot say the same.
    keys_in: (peft's keys, tensors by our names) -> our keys. Raises ConfigError if they mean what ours cannot.
    read: the keys of peft that `keys_in` reads, or that are settled by the tensors or matter only before training; all
        others must be null, false or empty.
    parts: our name of a tensor behind the path of its linear layer -> peft's, * for a number; empty: not on layers.
    layer_keys: (our configuration, tensors by our names, linear layer -> its sizes, target_modules) -> peft's keys
        about single layers. Raises ConfigError like keys_out.
    reshaped: (peft's name, tensor, True towards peft) -> the tensor in the other's shape.
    norms: True if peft can carry trained layer norms beside it.
    package: what must be imported before peft knows the method; None: nothing.
    """

    method: str
    keys_out: Callable[[AdapterConfig], Content]
    keys_in: Callable[[Content, Tensors], Content]
    read: frozenset[str]
    parts: Mapping[str, str] = field(default_factory=dict)
    layer_keys: Callable[[AdapterConfig, Tensors, Sizes, list[str]], Content] = _nothing
    reshaped: Callable[[str, torch.Tensor, bool], torch.Tensor] = _same
    norms: bool = True
    package: str | None = None

    def theirs(self, name: str) -> tuple[str, str] | None:
        """Split our name into the path of a layer and peft's name of the part; None if it is no part of this method."""
        return _renamed(name, self.parts.items())

    def ours(self, name: str) -> tuple[str, str] | None:
        """Split peft's name, without its prefix, into the path of a layer and our name of the part."""
        return _renamed(name, ((theirs, ours) for ours, theirs in self.parts.items()))

    def paths(self, tensors: Iterable[str]) -> set[str]:
        """The paths of the layers that have parts of this method. tensors: our names."""
        return {split[0] for name in tensors if (split := self.theirs(name))}


def _renamed(name: str, pairs: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    for given, wanted in pairs:
        match = re.fullmatch(r"(.+)\." + re.escape(given).replace(r"\*", r"(\d+)"), name)
        if match:
            path, *number = match.groups()
            return path, wanted.replace("*", "".join(number))
    return None


def one_of(content: Content, key: str, allowed: tuple[Any, ...]) -> None:
    """Raise ConfigError unless the value of `key`, null if it is missing, is one of `allowed`."""
    if content.get(key) not in allowed:
        shown = ", ".join(repr(value) for value in allowed if value is not None)
        raise ConfigError(f"{key} is {str(content.get(key))[:80]!r}; allowed: {shown}")


def whole(content: Content, key: str, default: int | None = None) -> int:
    """The value of a key. Raises ConfigError unless it is a whole number of at least 1."""
    value = content.get(key, default)
    if type(value) is not int or value < 1:
        raise ConfigError(f"{key} is {repr(value)[:80]}; it must be a whole number of at least 1")
    return value


def scale_out(config: AdapterConfig, rank: int) -> Content:
    """peft's keys of the scale and the dropout of our branches, which is alpha / rank, or 1 without an alpha."""
    alpha = rank if config.lora_alpha is None else config.lora_alpha
    alpha = int(alpha) if float(alpha).is_integer() else alpha
    return {"r": rank, "lora_alpha": alpha, "lora_dropout": config.lora_dropout, "bias": "none"}


def scale_in(content: Content) -> Content:
    """Our keys of the scale and the dropout."""
    rank, alpha, dropout = whole(content, "r", 8), content.get("lora_alpha", 8), content.get("lora_dropout", 0.0)
    if type(alpha) not in (int, float) or not math.isfinite(alpha):
        raise ConfigError(f"lora_alpha is {str(alpha)[:80]!r}; it must be a finite number")
    if type(dropout) not in (int, float):
        raise ConfigError(f"lora_dropout is {str(dropout)[:80]!r}; it must be a number")
    one_of(content, "bias", ("none", None))
    one_of(content, "use_rslora", (True, False, None))
    alpha = float(alpha) * math.sqrt(rank) if content.get("use_rslora") else float(alpha)
    return {"lora_alpha": alpha, "lora_dropout": float(dropout)}
