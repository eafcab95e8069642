"""Layers of a base model with adapters: which of them take part in a call, and for which rows."""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from torch import nn
from transformers.pytorch_utils import Conv1D

from t3nsor_peft.cores import NamedCores
from t3nsor_peft.mixed_batches import BASE, check_adapter_names
from t3nsor_peft.quantised import backend_of


class AdaptedLayer(nn.Module, BaseTunerLayer):
    """Base class: y = base(x) + a change by each active adapter, x: (.., in_features), y: (.., out_features).

    base_layer: an nn.Linear, a Conv1D of transformers, a quantised linear layer, or a layer of another tuner around it.

    A subclass keeps what it trains in dictionaries of modules or parameters, adapter -> part, whose names it lists in
    adapter_layer_names; NamedCores in them keep what they freeze.
    Raises TypeError for other layers.
    """

    def __init__(self, base_layer: nn.Module, adapter_name: str, **quantization: Any):
        super().__init__()
        self.base_layer = base_layer
        own = self.get_base_layer()
        self.quantization_backend = backend_of(own, **quantization)
        self.in_features, self.out_features = linear_sizes(own)
        self.merged_adapters: list[str] = []
        self._disable_adapters = False
        self._active_adapter = adapter_name

    def has_adapter(self, adapter: str) -> bool:
        raise NotImplementedError(f"{type(self).__name__} does not implement has_adapter")

    def change(self, x: torch.Tensor, y: torch.Tensor, adapter: str) -> torch.Tensor:
        """What an adapter adds to the output y of the base layer for the input x."""
        raise NotImplementedError(f"{type(self).__name__} does not implement change")

    def fused(self, x: torch.Tensor, adapter: str) -> torch.Tensor | None:
        """Base layer and one adapter in one go; None where that is not possible."""
        return None

    def forward(
        self, x: torch.Tensor, *args: Any, adapter_names: list[str] | None = None, **kwargs: Any
    ) -> torch.Tensor:
        """adapter_names: the adapter of each row of x, or "__base__"; None: the active adapters for all."""
        if adapter_names is not None:
            check_adapter_names(self, x, adapter_names)
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        if adapter_names is not None:
            return self._mixed_batch(x, adapter_names, *args, **kwargs)
        active = [] if self.merged else [name for name in self.active_adapters if self.has_adapter(name)]
        y = None
        if active and not (args or kwargs):
            y = self.fused(x, active[0])
            active = active if y is None else active[1:]
        if y is None:
            y = self.base_layer(x, *args, **kwargs)
        changes = [self.change(x, y, adapter).to(y.dtype) for adapter in active]
        return sum(changes, y)

    def _mixed_batch(self, x: torch.Tensor, adapter_names: list[str], *args: Any, **kwargs: Any) -> torch.Tensor:
        y = self.base_layer(x, *args, **kwargs)
        result = y
        for adapter in dict.fromkeys(adapter_names):
            if adapter != BASE and self.has_adapter(adapter):
                rows = torch.tensor([k for k, name in enumerate(adapter_names) if name == adapter], device=x.device)
                result = result.index_add(0, rows, self.change(x[rows], y[rows], adapter).to(y.dtype))
        return result

    def delete_adapter(self, adapter_name: str) -> None:
        """Delete an adapter. Raises ValueError while it is merged."""
        if adapter_name in self.merged_adapters:
            raise ValueError(f"{adapter_name!r} is merged; unmerge it before deleting it")
        super().delete_adapter(adapter_name)

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """Freeze again what is never trained; peft calls this whenever it has unfrozen whole adapters."""
        for name in self.adapter_layer_names:
            for part in getattr(self, name).values():
                if isinstance(part, NamedCores):
                    part.freeze()


def linear_sizes(layer: nn.Module) -> tuple[int, int]:
    """Return (in_features, out_features). Raises TypeError if it is no linear layer, quantised or not."""
    if not isinstance(layer, (nn.Linear, Conv1D)) and backend_of(layer) is None:
        raise TypeError(f"Target module {layer} is not supported; it must be a linear layer")
    return _get_in_out_features(layer)
