"""Batches whose rows belong to different adapters: `model(**batch, adapter_names=["a", "__base__", "b"])`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

BASE = "__base__"  # the rows of no adapter


def check_adapter_names(layer: BaseTunerLayer, x: torch.Tensor, adapter_names: Sequence[str]) -> None:
    """Raise ValueError unless there is a name for each row of x, and nothing is merged into the layer."""
    if len(x) != len(adapter_names):
        raise ValueError(
            "Length of `adapter_names` should be the same as the number of inputs, but got "
            f"{len(adapter_names)} and {len(x)} respectively."
        )
    if layer.merged:
        raise ValueError(
            "Cannot pass `adapter_names` when there are merged adapters, please call `unmerge_adapter` first."
        )


@contextmanager
def rows_assigned(model: nn.Module, adapter_names: Sequence[str], known: set[str], copies: int) -> Iterator[None]:
    """Within the context, hand its adapter to each row that a layer of `model` is called with.

    adapter_names: one for each row of the batch.
    known: the adapters of the model.
    copies: how often generation repeats each row, for beams or several sequences; an encoder sees them once.
    Raises ValueError for a name that is not known.
    """
    unknown = sorted(set(adapter_names) - known - {BASE})
    if unknown:
        raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}")

    def assign(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        names, rows = list(adapter_names), len(args[0]) if args else len(next(iter(kwargs.values())))
        if rows == copies * len(names):
            names = [name for name in names for _ in range(copies)]
        return args, {**kwargs, "adapter_names": names}

    with ExitStack() as hooks:
        for module in model.modules():
            if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
                handle = module.register_forward_pre_hook(assign, with_kwargs=True)
                hooks.callback(handle.remove)
        yield


def copies_in_generation(model: nn.Module, options: dict[str, Any]) -> int:
    """How often `generate` of transformers, called with `options`, repeats each row of the batch."""
    configs = [options.get("generation_config"), getattr(model, "generation_config", None)]

    def setting(name: str) -> int:
        given = [options.get(name), *(getattr(config, name, None) for config in configs)]
        return next((value for value in given if isinstance(value, int)), 1)

    return max(setting("num_beams"), setting("num_return_sequences"))
