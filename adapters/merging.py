"""Merging all branches of a model into the weights that its evaluation uses, and back."""

from collections.abc import Iterator

from torch import nn

from adapters.merged_weight import MergedWeight


def merge_adapters(model: nn.Module) -> dict[str, str]:
    """Let every adapted layer compute with one merged weight; `eval()` does so too unless merge_at_eval is false.

    Returns the layers whose branch stays parallel, and why: module name -> reason.
    """
    parallel = {}
    for name, layer in branched(model):
        layer.merge()
        if layer.unmergeable:
            parallel[name] = layer.unmergeable
    return parallel


def unmerge_adapters(model: nn.Module) -> None:
    """Let every branch run beside its weight again; `train()` does so too. No weight was or is written."""
    for _, layer in branched(model):
        layer.unmerge()


def remerge(model: nn.Module) -> None:
    """Build all merged weights anew, after writes through `.data`, which are not noticed."""
    for _, layer in branched(model):
        layer.remerge()


def is_merged(model: nn.Module) -> bool:
    """Whether `model` has branches that can be merged, and all of them are."""
    mergeable = [layer for _, layer in branched(model) if layer.unmergeable is None]
    return bool(mergeable) and all(layer.is_merged for layer in mergeable)


def rounding_losses(model: nn.Module) -> dict[str, float]:
    """Module name -> the part of the update that rounding the merged weight loses."""
    return {name: layer.rounding_loss() for name, layer in branched(model) if layer.unmergeable is None}


def branched(model: nn.Module) -> Iterator[tuple[str, MergedWeight]]:
    """The layers with a branch on their weight, by name."""
    for name, module in model.named_modules():
        if isinstance(module, MergedWeight) and module.branch is not None:
            yield name, module
