"""How what was trained becomes part of a weight that is never written.

In evaluation one merged tensor, W0 + s * dW, is held beside W0, outside the state dict: one GEMM, and W0 stays what it
was to the bit, whatever the precision and however often the mode changes.
"""

from weakref import WeakSet

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from adapters.adapter_configuration import AdapterConfig
from adapters.parts import AdapterPart
from t3nsor.autocast import without_autocast

MERGED: WeakSet["MergedWeight"] = WeakSet()


def rebuild_after_step(optimizer: torch.optim.Optimizer, *args) -> None:
    """A hook of all optimisers: fused ones write parameters without a trace in their version counters."""
    if MERGED:
        written = {parameter for group in optimizer.param_groups for parameter in group["params"]}
        for layer in list(MERGED):
            if layer.reads_any(written):
                layer.remerge()


register_optimizer_step_post_hook(rebuild_after_step)


class Branch(AdapterPart):
    """What is added to a weight. A method implements `delta`, and beside a linear layer `update`.

    unmergeable: why the branch cannot become part of the weight, None if it can.
    targets: names of the linear layers, where the method fixes them; None: lora_targets says.
    """

    unmergeable: str | None = None
    targets: tuple[str, ...] | None = None

    def update(self, x: torch.Tensor) -> torch.Tensor:
        """x: (.., in_features) -> what is added to the layer's output, (.., out_features), scaled."""
        raise NotImplementedError(f"{type(self).__name__} does not implement update")

    def delta(self, dtype: torch.dtype) -> torch.Tensor:
        """What is added to the weight, of its shape, (out_features, in_features), scaled, computed in `dtype`."""
        raise NotImplementedError(f"{type(self).__name__} does not implement delta")

    def beside(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The linear layer's whole output, (.., out_features), differentiable in x and the branch."""
        return nn.functional.linear(x, weight, bias) + self.update(x)

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight with the branch in it, in the precision of `weight`."""
        return weight + self.delta(weight.dtype)


class Watched:
    """A tensor in its place in a module, which goes stale when it is written or another one takes the place."""

    def __init__(self, home: dict, name: str):
        self.home, self.name, self.tensor = home, name, home[name]
        self.version = None if self.tensor.is_inference() else self.tensor._version

    def is_stale(self) -> bool:
        tensor = self.tensor
        return self.home[self.name] is not tensor or self.version is not None and self.version != tensor._version


class MergedWeight(nn.Module):
    """A module of the backbone with a `weight` and, where it is adapted, a `branch` on it. A base class.

    `eval()` merges unless merge_at_eval is false, `train()` undoes it, and so do those of any module around it.
    """

    def __init__(self, adapted: nn.Module, config: AdapterConfig):
        nn.Module.__init__(self)  # that of nn.Linear and the like would allocate another weight
        self.weight = adapted.weight
        self.branch: Branch | None = None
        self.merge_at_eval = config.merge_at_eval
        self.merge_dtype = getattr(torch, config.merge_dtype) if config.merge_dtype else None
        self.is_merged = False
        self._drop()
        self.training = adapted.training

    def train(self, mode: bool = True):
        super().train(mode)
        if mode:
            self.unmerge()
        elif self.merge_at_eval:
            self.merge()
        return self

    @property
    def unmergeable(self) -> str | None:
        """Why there is nothing to merge; None: there is."""
        if self.branch is None:
            return "no branch"
        return "its weight is sharded" if hasattr(self.weight, "placements") else self.branch.unmergeable

    def merge(self) -> None:
        """From now on compute with the merged weight, where no gradient of the branch is asked for."""
        if self.unmergeable is None:
            self.is_merged = True
            self.merged_weight()

    def unmerge(self) -> None:
        """From now on compute with weight and branch side by side."""
        self.is_merged = False
        MERGED.discard(self)
        self._drop()

    def remerge(self) -> None:
        """Build the merged weight anew; needed only after a write through `.data`, which leaves no trace."""
        self._drop()
        if self.is_merged:
            self.merged_weight()

    @property
    def computes_merged(self) -> bool:
        """Whether the next call uses the merged weight: merged, and no gradient of the branch can be asked for."""
        if not self.is_merged:
            return False
        return not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in self._sources()))

    def merged_weight(self) -> torch.Tensor:
        """W0 + s * dW, of the weight's shape, computed in float64 and rounded to merge_dtype.

        Kept until `unmerge`; built anew when the weight or the branch was written since.
        """
        merged, watched = self._kept
        if merged is None or not torch.compiler.is_compiling() and any(entry.is_stale() for entry in watched):
            # A tensor made under inference_mode could not be used outside of it.
            with torch.inference_mode(False), torch.no_grad(), without_autocast(self.weight.device):
                merged = self.exact_weight().to(self.merge_dtype or self.weight.dtype)
            self._kept = merged, [Watched(*source) for source in self._homes()]
            MERGED.add(self)
        return merged

    @torch.no_grad()
    def rounding_loss(self) -> float:
        """What rounding the merged weight loses, as a part of dW: |merged - W0 - dW| / |dW|; 0 where dW is 0.

        With a merge_dtype narrower than the weight's it is mostly W0 that loses, and the number may be above 1.
        """
        exact = self.exact_weight()
        change = torch.linalg.vector_norm(exact - self.weight.to(exact.dtype))
        lost = torch.linalg.vector_norm(exact.to(self.merge_dtype or self.weight.dtype).to(exact.dtype) - exact)
        return (lost / change).item() if change else 0.0

    def reads_any(self, tensors: set[torch.Tensor]) -> bool:
        """Whether the merged weight was made of one of `tensors`."""
        return any(entry.tensor in tensors for entry in self._kept[1])

    def exact_weight(self) -> torch.Tensor:
        """W0 + s * dW in float64, or where a device has none in float32."""
        precise = torch.float32 if self.weight.device.type == "mps" else torch.float64
        return self.branch.merged(self.weight.detach().to(precise))

    def _homes(self):
        """(dictionary, key) of the weight and of all tensors of the branch."""
        yield self._parameters, "weight"
        for module in self.branch.modules():
            for home in (module._parameters, module._buffers):
                yield from ((home, name) for name, tensor in home.items() if tensor is not None)

    def _sources(self):
        return (home[name] for home, name in self._homes())

    def _drop(self) -> None:
        self._kept = None, []

    def _apply(self, fn, recurse: bool = True):
        super()._apply(fn, recurse)
        self._drop()
        return self

    def _load_from_state_dict(self, *args, **kwargs):
        super()._load_from_state_dict(*args, **kwargs)
        self._drop()  # with assign=True the branch gets new parameters

    def __getstate__(self) -> dict:
        """For pickling and deepcopy: without what can be built again."""
        return {**self.__dict__, "_kept": (None, [])}
