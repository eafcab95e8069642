"""Merging all branches of a model into the weights that evaluation uses, and undoing it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from adapters.merged_weight import MergedWeight


def merge_adapters(model: nn.Module) -> dict[str, str]:
    """Merge the branches of all layers; `eval()` does the same unless merge_at_eval is false.

    Returns the layers whose branch stays parallel: module name -> reason.
    """
    parallel = {}
    for name, layer in branched(model):
        layer.merge()
        if layer.unmergeable:
            parallel[name] = layer.unmergeable
    return parallel


def unmerge_adapters(model: nn.Module) -> None:
    """Undo `merge_adapters`; `train()` does the same. The layers' own weights are never written."""
    for _, layer in branched(model):
        layer.unmerge()


def remerge(model: nn.Module) -> None:
    """Rebuild all merged weights; needed after writes through `.data`, which cannot be detected."""
    for _, layer in branched(model):
        layer.remerge()


@contextmanager
def conversions_undone(model: nn.Module) -> Iterator[None]:
    """Give each parameter and buffer of `model` its tensor back at the end, to whatever it was converted inside.

    Until then the memory holds both.
    """
    values = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    try:
        yield
    finally:
        for parameter, value in values:
            parameter.data = value
        for module, before in buffers:
            module._buffers.update(before)
        remerge(model)


def is_merged(model: nn.Module) -> bool:
    """True if `model` has branches that can be merged and all of them are merged."""
    mergeable = [layer for _, layer in branched(model) if layer.unmergeable is None]
    return bool(mergeable) and all(layer.is_merged for layer in mergeable)


def rounding_losses(model: nn.Module) -> dict[str, float]:
    """Relative rounding error of the update in each merged weight, by module name; see `MergedWeight.rounding_loss`."""
    return {name: layer.rounding_loss() for name, layer in branched(model) if layer.unmergeable is None}


def branched(model: nn.Module) -> Iterator[tuple[str, MergedWeight]]:
    """Yield the layers that have a branch, with their names."""
    for name, module in model.named_modules():
        if isinstance(module, MergedWeight) and module.branch is not None:
            yield name, module
