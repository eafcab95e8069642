"""Linear layers of a base model with trained updates of their weight beside them.

While merged, a layer computes with W0 + sum of the updates, computed in float64 and rounded once. The bits of W0 are
kept, and put back into the same parameter when it is unmerged: nothing is ever subtracted.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import check_adapters_to_merge
from torch import nn
from transformers.pytorch_utils import Conv1D

from t3nsor.autocast import autocast_dtype, without_autocast
from t3nsor.contraction.ops import contract_cores
from t3nsor.tensor_train import TensorRing, TensorTrain
from t3nsor_peft.cores import computable, exact_dtype
from t3nsor_peft.layer import AdaptedLayer
from t3nsor_peft.quantised import check_mergeable

BROKEN = "NaNs detected in the merged weights. The adapter {} seems to be broken"


def is_watched(layer: nn.Module) -> bool:
    """True if a call of the layer does more than its forward pass: hooks, or a forward pass put in place of its own."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks) or "forward" in vars(layer) or nn.modules.module._has_any_global_hook()


def dropout_layer(probability: float) -> nn.Module:
    return nn.Dropout(probability) if probability else nn.Identity()


class UpdatedLinear(AdaptedLayer):
    """Base class: y = x W0^T + b + sum over the active adapters of s * x W, with W given by cores.

    A subclass says with `operands` what is multiplied. Raises TypeError for a base layer that is not linear.
    """

    dropout_name: str  # of the dictionary of dropouts

    def __init__(self, base_layer: nn.Module, adapter_name: str, **quantization: Any):
        super().__init__(base_layer, adapter_name, **quantization)
        self.fan_in_fan_out = isinstance(self.get_base_layer(), Conv1D)  # its weight is (in, out)
        self.scaling: dict[str, float] = {}
        self.initial_scaling: dict[str, float] = {}

    def operands(
        self, adapter: str, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[float, Sequence[torch.Tensor], bool]]:
        """Yield (scale, cores, closed) of each train, or ring if closed, whose sum is the update of `adapter`.

        dtype: of the cores; None: their own.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement operands")

    def change(self, x: torch.Tensor, y: torch.Tensor, adapter: str) -> torch.Tensor:
        """s * x W, with dropout on x in training."""
        x = getattr(self, self.dropout_name)[adapter](x)
        updates = [
            contract_cores(x, computable(cores, x), closed, scale=scale)
            for scale, cores, closed in self.operands(adapter)
        ]
        return sum(updates[1:], updates[0])

    def fused(self, x: torch.Tensor, adapter: str) -> torch.Tensor | None:
        base = self.base_layer
        if not self._is_fusible(x, adapter):
            return None
        (scale, cores, closed), *others = self.operands(adapter)
        weight = base.weight.t() if self.fan_in_fan_out else base.weight
        y = contract_cores(x, computable(cores, x), closed, weight=weight, bias=base.bias, scale=scale)
        for scale, cores, closed in others:
            y = y + contract_cores(x, computable(cores, x), closed, scale=scale)
        return y

    def _is_fusible(self, x: torch.Tensor, adapter: str) -> bool:
        """True if the base layer computes x W0^T + b and nothing else, and the update sees the same x."""
        base = self.base_layer
        drops = self.training and isinstance(getattr(self, self.dropout_name)[adapter], nn.Dropout)
        if drops or type(base) not in (nn.Linear, Conv1D) or type(base.weight) is not nn.Parameter or is_watched(base):
            return False
        return x.dtype == base.weight.dtype or autocast_dtype(x.device) is not None

    def get_delta_weight(self, adapter: str, *_: Any) -> torch.Tensor:
        """The update of the weight, of its shape, in the dtype of the adapter's cores."""
        dtype = next(iter(self.operands(adapter)))[1][0].dtype
        return self.exact_delta(adapter).to(dtype)

    def exact_delta(self, adapter: str) -> torch.Tensor:
        """The update of the weight, of its shape, in float64, or in float32 on devices without it."""
        deltas = [
            scale * (TensorRing if closed else TensorTrain)(cores).full()
            for scale, cores, closed in self.operands(adapter, exact_dtype(self.weight.device))
        ]
        delta = sum(deltas[1:], deltas[0])
        return delta if self.fan_in_fan_out else delta.t()

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    # Merging.

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Put the updates of the adapters, by default of the active ones, into the weight of the base layer.

        safe_merge: True to raise ValueError, before anything is changed, if the result would not be finite.
        """
        names = [name for name in check_adapters_to_merge(self, adapter_names) if self.has_adapter(name)]
        if not names:
            return
        merged = self.merged_weight([*self.merged_adapters, *names])
        if safe_merge and not merged.isfinite().all():
            raise ValueError(BROKEN.format(names[-1]))
        if not self.merged:
            # A buffer follows conversions of the model, so that unmerging brings no other dtype or device back.
            self.register_buffer("kept_weight", self._own_weight(), persistent=False)
        if self.quantization_backend is None:
            self.get_base_layer().weight.data = merged
        else:
            self.quantization_backend.quantise(self.get_base_layer(), merged)
        self.merged_adapters = [*self.merged_adapters, *names]

    def unmerge(self) -> None:
        """Put the bits of the base layer's weight back."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        if self.quantization_backend is None:
            self.get_base_layer().weight.data = self.kept_weight
        else:
            self.quantization_backend.put_back(self.get_base_layer(), self.kept_weight)
        del self.kept_weight
        self.merged_adapters = []

    @torch.no_grad()
    def merged_weight(self, adapters: Sequence[str]) -> torch.Tensor:
        """W0 plus the updates of `adapters`, rounded once to the dtype of W0; a new tensor.

        It is float32 where the base layer is quantised, and rounded when it is quantised.
        Raises ValueError for a quantised base layer whose backend cannot be merged into.
        """
        check_mergeable(self)
        weight, dtype = self.kept_weight if self.merged else self._own_weight(), torch.float32
        if self.quantization_backend is None:
            dtype = weight.dtype
        else:
            weight = self.quantization_backend.dequantised(weight)
        if weight.is_meta:
            raise ValueError(f"{type(self).__name__}: the weight is offloaded; load the model into memory to merge")
        with without_autocast(weight.device):
            deltas = [self.exact_delta(adapter) for adapter in adapters]
            return sum(deltas, weight.to(deltas[0].dtype)).to(dtype)

    def _own_weight(self) -> torch.Tensor:
        base = self.get_base_layer()
        return base.weight.data if self.quantization_backend is None else self.quantization_backend.weight_of(base)

    # The scale of an update, as peft's LoRA has it.

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the scale of `adapter` to `scale` times the one that its configuration says."""
        if adapter in self.scaling:
            self.scaling[adapter] = scale * self.initial_scaling[adapter]

    def scale_layer(self, scale: float) -> None:
        """Multiply the scale of all active adapters by `scale`."""
        for adapter in self._scaled():
            self.scaling[adapter] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the scale of all active adapters by `scale`; None: set it to what their configuration says."""
        for adapter in self._scaled():
            self.scaling[adapter] = self.initial_scaling[adapter] if scale is None else self.scaling[adapter] / scale

    def _scaled(self) -> list[str]:
        return [adapter for adapter in self.active_adapters if adapter in self.scaling]
