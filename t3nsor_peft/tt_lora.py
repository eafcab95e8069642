"""TT-LoRA (Anjum et al. 2024, https://arxiv.org/abs/2408.01008): y = x W0^T + s * x W with W a tensor train or ring.

W: (in_features, out_features) has cores G_k: (r_{k-1}, n_k, m_k, r_k), so sum of r_{k-1} n_k m_k r_k parameters. Its
last trained core starts at zero and the others at random with Glorot's variance.

With init_weights "svd" the cores start from the TT-SVD of W0, like PiSSA from its SVD (Meng et al. 2024,
https://arxiv.org/abs/2404.02948). W0 is not changed: the update is s * x (W - W_start), where the cores of W_start are
frozen and saved.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from peft.utils import get_quantization_kwargs
from torch import nn

from t3nsor import ShapeError, from_matrix, glorot_initializer, padded, zero_delta
from t3nsor_peft.config import TTLoraConfig
from t3nsor_peft.cores import CoreShape, NamedCores
from t3nsor_peft.layer import UpdatedLinear
from t3nsor_peft.model import TrainTuner
from t3nsor_peft.weighted import WeightedSums


class TTLoraLinear(UpdatedLinear):
    """x W0^T + b + s * x W. Keys of the state dict: `tt_lora_cores.ADAPTER.core_0`, .., and `tt_lora_start.` for SVD."""

    adapter_layer_names = ("tt_lora_cores", "tt_lora_start")
    other_param_names = ("tt_lora_dropout", "scaling", "initial_scaling", "frozen_cores", "rings")
    dropout_name = "tt_lora_dropout"

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: TTLoraConfig, layer: str, **quantization: Any):
        super().__init__(base_layer, **quantization)
        self.tt_lora_cores, self.tt_lora_start = nn.ModuleDict(), nn.ModuleDict()
        self.tt_lora_dropout = nn.ModuleDict()
        self.frozen_cores: dict[str, tuple[int, ...]] = {}
        self.rings: dict[str, bool] = {}
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, config, layer)

    def update_layer(self, adapter_name: str, config: TTLoraConfig, layer: str) -> None:
        """Add an adapter. layer: the name of this layer in the model, by which the configuration knows its shape."""
        shape = config.core_shape(layer, self.in_features, self.out_features)
        config.layer_shapes[layer] = shape.to_json()
        self.frozen_cores[adapter_name] = config.frozen_cores(len(shape.rows))
        self.rings[adapter_name] = config.ring
        self.scaling[adapter_name] = self.initial_scaling[adapter_name] = config.scale_of(layer)
        dropout = nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
        self.tt_lora_dropout[adapter_name] = dropout
        cores = self._initial_cores(config, shape, self.frozen_cores[adapter_name])
        self.tt_lora_cores[adapter_name] = NamedCores(cores)
        if config.init_weights == "svd":
            self.tt_lora_start[adapter_name] = NamedCores(cores)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def has_adapter(self, adapter: str) -> bool:
        return adapter in self.tt_lora_cores

    def operands(self, adapter: str) -> Iterator[tuple[float, Sequence[torch.Tensor], bool]]:
        scale, closed = self.scaling[adapter], self.rings[adapter]
        yield scale, list(self.tt_lora_cores[adapter]), closed
        if adapter in self.tt_lora_start:
            yield -scale, list(self.tt_lora_start[adapter]), closed

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        return True

    def _freeze_non_trainable_peft_weights(self, adapter_names: str | Sequence[str] | None = None) -> None:
        """Freeze the frozen cores again, and the start; peft calls this whenever it has unfrozen an adapter."""
        names = self.frozen_cores if adapter_names is None else adapter_names
        for adapter in [names] if isinstance(names, str) else names:
            if adapter in self.tt_lora_cores:
                cores = list(self.tt_lora_cores[adapter])
                for k in self.frozen_cores[adapter]:
                    cores[k].requires_grad_(False)
            if adapter in self.tt_lora_start:
                self.tt_lora_start[adapter].requires_grad_(False)

    def _initial_cores(self, config: TTLoraConfig, shape: CoreShape, frozen: Sequence[int]) -> list[torch.Tensor]:
        d, ranks = len(shape.rows), list(shape.ranks)
        if config.init_weights is False:
            return list(glorot_initializer(shape.matrix, ranks, ring=config.ring, dtype=torch.float32).cores)
        trained = [k for k in range(d) if k not in frozen]
        if not trained:
            raise ShapeError(f"freeze_cores {config.freeze_cores!r} freezes all {d} cores; one must be trained")
        weight = self.quantization_backend.get_base_weight(self.get_base_layer()) if self._is_quantised else self.weight
        if config.init_weights == "svd" and not weight.is_meta:
            matrix = weight.detach() if self.fan_in_fan_out else weight.detach().t()
            start = from_matrix(matrix.float(), shape.matrix, ranks, dtype=torch.float32)
            return list(padded(start, ranks).cores)
        return list(zero_delta(shape.matrix, ranks, zero=trained[-1], ring=config.ring, dtype=torch.float32).cores)

    @property
    def _is_quantised(self) -> bool:
        return self.quantization_backend is not None


class TTLoraModel(WeightedSums, TrainTuner):
    """The tuner of TT-LoRA: adapts nn.Linear, Conv1D of transformers, and quantised linear layers.

    model: the base model.
    config: a TTLoraConfig, or a dictionary adapter -> config.
    adapter_name: name of the adapter.
    """

    prefix = "tt_lora_"
    tuner_layer_cls = TTLoraLinear

    def _create_and_replace(
        self, peft_config, adapter_name, target, target_name, parent, current_key, **kwargs: Any
    ) -> None:
        if isinstance(target, TTLoraLinear):
            target.update_layer(adapter_name, peft_config, current_key)
            return
        layer = TTLoraLinear(target, adapter_name, peft_config, current_key, **get_quantization_kwargs(self))
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)
