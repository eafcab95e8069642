"""Linear layers of a base model with trained updates of their weight beside them.

While merged, a layer computes with W0 + sum of the updates, computed in float64 and rounded once. The bits of W0 are
kept, and put back into the same parameter when it is unmerged: nothing is ever subtracted.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import resolve_quantization_backend
from torch import nn
from transformers.pytorch_utils import Conv1D

from t3nsor.autocast import autocast_dtype, without_autocast
from t3nsor.contraction.ops import contract_cores
from t3nsor.tensor_train import TensorRing, TensorTrain
from t3nsor_peft.cores import computable
from t3nsor_peft.mixed_batches import BASE, check_adapter_names

BROKEN = "NaNs detected in the merged weights. The adapter {} seems to be broken"


class UpdatedLinear(nn.Module, BaseTunerLayer):
    """Base class: y = x W0^T + b + sum over the active adapters of s * x W, with W given by cores.

    x: (.., in_features), y: (.., out_features) in the dtype of the base layer's output.
    base_layer: an nn.Linear, a Conv1D of transformers, a quantised linear layer, or a layer of another tuner around one.

    A subclass has a dictionary `cores_of`, adapter -> module, and says with `operands` what is multiplied.
    """

    dropout_name: str

    def __init__(self, base_layer: nn.Module, **quantization: Any):
        super().__init__()
        self.base_layer = base_layer
        own = self.get_base_layer()
        self.quantization_backend = resolve_quantization_backend(own, **quantization)
        self.in_features, self.out_features = _get_in_out_features(own)
        self.fan_in_fan_out = isinstance(own, Conv1D)  # its weight is (in, out)
        self.scaling: dict[str, float] = {}
        self.initial_scaling: dict[str, float] = {}
        self.merged_adapters: list[str] = []
        self._disable_adapters = False

    def operands(self, adapter: str) -> Iterator[tuple[float, Sequence[torch.Tensor], bool]]:
        """Yield (scale, cores, closed) of each train, or ring if closed, that the update of `adapter` is the sum of."""
        raise NotImplementedError(f"{type(self).__name__} does not implement operands")

    def has_adapter(self, adapter: str) -> bool:
        raise NotImplementedError(f"{type(self).__name__} does not implement has_adapter")

    def forward(self, x: torch.Tensor, *args: Any, adapter_names: list[str] | None = None, **kwargs: Any):
        if adapter_names is not None:
            check_adapter_names(self, x, adapter_names)
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        if adapter_names is not None:
            return self._mixed_batch(x, adapter_names, *args, **kwargs)
        active = [] if self.merged else [name for name in self.active_adapters if self.has_adapter(name)]
        if not active:
            return self.base_layer(x, *args, **kwargs)
        if not (args or kwargs) and self._is_fusible(x, active[0]):
            first, *active = active
            y = self._fused(x, first)
        else:
            y = self.base_layer(x, *args, **kwargs)
        for adapter in active:
            y = y + self.update(x, adapter).to(y.dtype)
        return y

    def update(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        """s * x W of one adapter, (.., out_features), with dropout on x in training."""
        x = self._dropped(x, adapter)
        updates = [
            contract_cores(x, computable(cores, x), closed, scale=scale)
            for scale, cores, closed in self.operands(adapter)
        ]
        return updates[0] if len(updates) == 1 else sum(updates[1:], updates[0])

    def get_delta_weight(self, adapter: str, *_: Any) -> torch.Tensor:
        """The update of the weight, of its shape, in the dtype of the adapter's cores."""
        dtype = next(iter(self.operands(adapter)))[1][0].dtype
        return self.exact_delta(adapter).to(dtype)

    def exact_delta(self, adapter: str) -> torch.Tensor:
        """The update of the weight, of its shape, in float64, or in float32 on devices without it."""
        deltas = []
        for scale, cores, closed in self.operands(adapter):
            precise = torch.float32 if cores[0].device.type == "mps" else torch.float64
            chain = (TensorRing if closed else TensorTrain)([core.to(precise) for core in cores])
            deltas.append(scale * chain.full())
        delta = sum(deltas[1:], deltas[0])
        return delta if self.fan_in_fan_out else delta.t()

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
        weight = self.get_base_layer().weight
        if not self.merged:
            # A buffer follows conversions of the model, so that unmerging brings no other dtype or device back.
            self.register_buffer("kept_weight", weight.data, persistent=False)
        weight.data = merged
        self.merged_adapters = [*self.merged_adapters, *names]

    def unmerge(self) -> None:
        """Put the bits of the base layer's weight back."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self.get_base_layer().weight.data = self.kept_weight
        del self.kept_weight
        self.merged_adapters = []

    @torch.no_grad()
    def merged_weight(self, adapters: Sequence[str]) -> torch.Tensor:
        """W0 plus the updates of `adapters`, rounded once to the dtype of W0; a new tensor.

        Raises ValueError for a quantised base layer.
        """
        if self.quantization_backend is not None:
            raise ValueError(
                f"{type(self).__name__}: merging into a weight quantised by {self.quantization_backend.backend_name} is "
                "not supported; merge into the model before it is quantised"
            )
        weight = self.kept_weight if self.merged else self.get_base_layer().weight.data
        with without_autocast(weight.device):
            deltas = [self.exact_delta(adapter) for adapter in adapters]
            return sum(deltas, weight.to(deltas[0].dtype)).to(weight.dtype)

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

    # Computing.

    def _dropped(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        return x if self.dropout_name is None else getattr(self, self.dropout_name)[adapter](x)

    def _drops(self, adapter: str) -> bool:
        dropout = None if self.dropout_name is None else getattr(self, self.dropout_name)[adapter]
        return self.training and isinstance(dropout, nn.Dropout)

    def _is_fusible(self, x: torch.Tensor, adapter: str) -> bool:
        """True if base layer and update can be one contraction: the base layer's forward is x W0^T + b, nothing else."""
        base = self.base_layer
        if type(base) not in (nn.Linear, Conv1D) or type(base.weight) is not nn.Parameter or self._drops(adapter):
            return False
        if base._forward_hooks or base._forward_pre_hooks or base._backward_hooks or base._backward_pre_hooks:
            return False
        return x.dtype == base.weight.dtype or autocast_dtype(x.device) is not None

    def _fused(self, x: torch.Tensor, adapter: str) -> torch.Tensor:
        weight, bias = self.base_layer.weight, self.base_layer.bias
        (scale, cores, closed), *others = self.operands(adapter)
        weight = weight.t() if self.fan_in_fan_out else weight
        y = contract_cores(x, computable(cores, x), closed, weight=weight, bias=bias, scale=scale)
        for scale, cores, closed in others:
            y = y + contract_cores(x, computable(cores, x), closed, scale=scale)
        return y

    def _mixed_batch(self, x: torch.Tensor, adapter_names: list[str], *args: Any, **kwargs: Any) -> torch.Tensor:
        y = self.base_layer(x, *args, **kwargs)
        for adapter in dict.fromkeys(adapter_names):
            if adapter != BASE and self.has_adapter(adapter):
                rows = torch.tensor([k for k, name in enumerate(adapter_names) if name == adapter], device=x.device)
                y = y.index_add(0, rows, self.update(x[rows], adapter).to(y.dtype))
        return y
