"""Merging a branch into the weight that a layer computes with, without ever writing the layer's own weight.

In evaluation, one merged tensor W0 + s * dW is kept beside W0, outside the state dict. A forward pass is then one GEMM,
and W0 keeps its exact bits whatever the precision and however often the mode changes.
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self
from weakref import WeakSet

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart
from adapters.task_switch import TaskSwitch
from t3nsor.autocast import without_autocast

# The layers that hold a merged weight now.
MERGED_LAYERS: WeakSet["MergedWeight"] = WeakSet()


def rebuild_after_step(optimizer: torch.optim.Optimizer, *args: Any) -> None:
    """Rebuild the merged weights made of parameters of `optimizer`; a hook called after every optimiser step.

    Fused optimisers do not increase the version counters of the parameters that they write.
    """
    if MERGED_LAYERS:
        written = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        for layer in list(MERGED_LAYERS):
            if layer.depends_on(written):
                layer.remerge()


register_optimizer_step_post_hook(rebuild_after_step)


class Branch(AdapterPart):
    """A trained change of a weight. A subclass implements `delta`, and for linear layers also `update`.

    unmergeable: the reason why the branch cannot be merged into the weight, or None.
    targets: the linear layers that get the branch, if the method fixes them; None: those in lora_targets.
    """

    unmergeable: str | None = None
    targets: tuple[str, ...] | None = None

    def update(self, x: torch.Tensor) -> torch.Tensor:
        """The scaled update of the layer's output; x: (.., in_features) -> (.., out_features)."""
        raise NotImplementedError(f"{type(self).__name__} does not implement update")

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        """The scaled update of the weight, of the weight's shape (out_features, in_features), computed in `dtype`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement delta")

    def layer_output(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The output of the linear layer with this branch in parallel; x: (.., in_features) -> (.., out_features)."""
        return nn.functional.linear(x, weight, bias) + self.update(x)

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """A new tensor: the weight with the branch merged into it, computed in the dtype of `weight`."""
        return weight + self.delta(weight.dtype)


class TensorSnapshot:
    """Remembers a tensor of a module, to detect later that it was written in place or replaced.

    tensors: the dictionary of the module that holds the tensor, its `_parameters` or `_buffers`.
    name: the key in it.
    """

    def __init__(self, tensors: dict[str, Any], name: str):
        self.tensors, self.name, self.tensor = tensors, name, tensors[name]
        self.version = None if self.tensor.is_inference() else self.tensor._version

    def is_stale(self) -> bool:
        """True if the tensor was written or replaced since."""
        tensor = self.tensor
        return self.tensors[self.name] is not tensor or self.version is not None and self.version != tensor._version


class HasWeight(Protocol):
    """The attributes of a backbone module that MergedWeight takes over."""

    weight: torch.Tensor
    training: bool


class MergedWeight(nn.Module):
    """Base class of modules that replace a module of the backbone, `adapted`, to put a `branch` on its weight.

    Calling `eval()` on it or on a module that contains it merges the branch, unless merge_at_eval is false; `train()`
    undoes it. While `switch` is off, the module computes with the weight alone.
    """

    weight: torch.Tensor
    _cache: tuple[torch.Tensor | None, list[TensorSnapshot]]

    def __init__(self, adapted: HasWeight, config: AdapterConfig, switch: TaskSwitch):
        nn.Module.__init__(self)  # the __init__ of nn.Linear etc. would allocate another weight
        self.weight, self.switch = adapted.weight, switch
        self.branch: Branch | None = None
        self.merge_at_eval = config.merge_at_eval
        self.merge_dtype: torch.dtype | None = getattr(torch, config.merge_dtype) if config.merge_dtype else None
        self.is_merged = False
        self._clear_cache()
        self.training = adapted.training

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if mode:
            self.unmerge()
        elif self.merge_at_eval:
            self.merge()
        return self

    @property
    def compute_dtype(self) -> torch.dtype:
        """The dtype that the layer computes in."""
        return self.weight.dtype

    @property
    def unmergeable(self) -> str | None:
        """The reason why nothing can be merged, or None."""
        if self.branch is None:
            return "no branch"
        if "weight" not in self._parameters:
            return "its weight is parametrized, computed from other tensors"
        if getattr(getattr(self, "_hf_hook", None), "offload", False):
            return "its weight is offloaded"
        return "its weight is sharded" if hasattr(self.weight, "placements") else self.branch.unmergeable

    def merge(self) -> None:
        """Compute with the merged weight from now on, except when a gradient of the branch is needed."""
        if self.unmergeable is None:
            self.is_merged = True
            self.merged_weight()

    def unmerge(self) -> None:
        """Compute with the weight and the branch in parallel from now on."""
        self.is_merged = False
        MERGED_LAYERS.discard(self)
        self._clear_cache()

    def remerge(self) -> None:
        """Rebuild the merged weight; needed only after a write through `.data`, which cannot be detected."""
        self._clear_cache()
        if self.is_merged and self.unmergeable is None:  # FSDP may have spread the weight since
            self.merged_weight()

    @property
    def computes_merged(self) -> bool:
        """True if the next call uses the merged weight: merged, switched on, and the branch needs no gradient."""
        if not self.is_merged or not self.switch.enabled or self.unmergeable:
            return False
        return not (torch.is_grad_enabled() and any(tensors[name].requires_grad for tensors, name in self._sources()))

    def present_weight(self) -> torch.Tensor:
        """The weight that the next call computes with, of the weight's shape."""
        if self.computes_merged:
            return self.merged_weight()
        return self.adapted_weight(self.weight) if self.switch.enabled else self.weight

    def merged_weight(self) -> torch.Tensor:
        """W0 + s * dW, of the weight's shape, computed in float64 and rounded to merge_dtype.

        Cached until `unmerge`, and rebuilt if the weight or the branch has been written since.
        """
        merged, snapshots = self._cache
        if merged is None or not torch.compiler.is_compiling() and any(snapshot.is_stale() for snapshot in snapshots):
            # A tensor made under inference_mode could not be used outside it.
            with torch.inference_mode(False), torch.no_grad(), without_autocast(self.weight.device):
                merged = self.exact_weight().to(self.merge_dtype or self.weight.dtype)
            self._cache = merged, [TensorSnapshot(*source) for source in self._sources()]
            MERGED_LAYERS.add(self)
        return merged

    @torch.no_grad()
    def rounding_loss(self) -> float:
        """The relative rounding error of the update in the merged weight, |merged - W0 - dW| / |dW|; 0 if dW is 0.

        If merge_dtype is narrower than the weight's dtype, most of the error is that of W0 and may exceed 1.
        """
        exact = self.exact_weight()
        change = torch.linalg.vector_norm(exact - self.weight.to(exact.dtype))
        lost = torch.linalg.vector_norm(exact.to(self.merge_dtype or self.weight.dtype).to(exact.dtype) - exact)
        return (lost / change).item() if change else 0.0

    def depends_on(self, tensors: set[torch.Tensor]) -> bool:
        """True if the cached merged weight was computed from one of `tensors`."""
        return any(snapshot.tensor in tensors for snapshot in self._cache[1])

    def exact_weight(self) -> torch.Tensor:
        """W0 + s * dW in float64, or in float32 on devices without float64."""
        precise = torch.float32 if self.weight.device.type == "mps" else torch.float64
        return self.adapted_weight(self.weight.detach().to(precise))

    def adapted_weight(self, weight: torch.Tensor) -> torch.Tensor:
        """`weight` with the branch merged into it; unchanged without a branch."""
        return weight if self.branch is None else self.branch.merged(weight)

    def _sources(self) -> Iterator[tuple[dict[str, Any], str]]:
        """(dictionary, key) of the weight and of all tensors of the branch."""
        yield self._parameters, "weight"
        for module in self.branch.modules() if self.branch is not None else ():
            for tensors in (module._parameters, module._buffers):
                yield from ((tensors, name) for name, tensor in tensors.items() if tensor is not None)

    def _clear_cache(self) -> None:
        self._cache = None, []

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self._clear_cache()
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._clear_cache()  # with assign=True the branch gets new parameters

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickling and deepcopy, without the cache."""
        return {**self.__dict__, "_cache": (None, [])}
