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

from t3nsor import from_matrix, padded
from t3nsor_peft.config import TTLoraConfig
from t3nsor_peft.cores import CoreShape, NamedCores, converted, initial_cores
from t3nsor_peft.model import TrainTuner
from t3nsor_peft.updated_linear import UpdatedLinear, dropout_layer
from t3nsor_peft.weighted import WeightedSums


class TTLoraLinear(UpdatedLinear):
    """x W0^T + b + s * x W. State-dict keys: `tt_lora_cores.ADAPTER.core_0`, .., and with SVD `tt_lora_start. ..`.

    layer: the name of this layer in the model, by which the configuration knows its shape.
    """

    adapter_layer_names = ("tt_lora_cores", "tt_lora_start")
    other_param_names = ("tt_lora_dropout", "scaling", "initial_scaling", "rings")
    dropout_name = "tt_lora_dropout"

    def __init__(self, base_layer: nn.Module, adapter_name: str, config: TTLoraConfig, layer: str, **quantization: Any):
        super().__init__(base_layer, adapter_name, **quantization)
        self.tt_lora_cores, self.tt_lora_start = nn.ModuleDict(), nn.ModuleDict()
        self.tt_lora_dropout = nn.ModuleDict()
        self.rings: dict[str, bool] = {}
        self.update_layer(adapter_name, config, layer)

    def update_layer(self, adapter_name: str, config: TTLoraConfig, layer: str) -> None:
        """Add an adapter."""
        shape = config.core_shape(layer, self.in_features, self.out_features)
        config.layer_shapes[layer] = shape.to_json()
        frozen = config.frozen_cores(len(shape.rows))
        cores = self._initial_cores(config, shape, frozen)
        self.tt_lora_cores[adapter_name] = NamedCores(cores, frozen)
        if config.init_weights == "svd":
            self.tt_lora_start[adapter_name] = NamedCores(cores, range(len(cores)))
        self.tt_lora_dropout[adapter_name] = dropout_layer(config.lora_dropout)
        self.rings[adapter_name] = config.ring
        self.scaling[adapter_name] = self.initial_scaling[adapter_name] = config.scale_of(layer)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def has_adapter(self, adapter: str) -> bool:
        return adapter in self.tt_lora_cores

    def operands(
        self, adapter: str, dtype: torch.dtype | None = None
    ) -> Iterator[tuple[float, Sequence[torch.Tensor], bool]]:
        scale, closed = self.scaling[adapter], self.rings[adapter]
        yield scale, converted(self.tt_lora_cores[adapter](), dtype), closed
        if adapter in self.tt_lora_start:
            yield -scale, converted(self.tt_lora_start[adapter](), dtype), closed

    def _initial_cores(self, config: TTLoraConfig, shape: CoreShape, frozen: Sequence[int]) -> list[torch.Tensor]:
        if config.init_weights == "svd" and not self.weight.is_meta:
            weight = self.get_base_weight().detach()
            matrix = weight if self.fan_in_fan_out else weight.t()
            return list(padded(from_matrix(matrix.float(), shape.matrix, shape.ranks), shape.ranks).cores)
        return initial_cores(shape, config.ring, frozen, zero=bool(config.init_weights))


class TTLoraModel(WeightedSums, TrainTuner):
    """The tuner of TT-LoRA.

    model: the base model, of which linear layers, Conv1D of transformers and quantised linear layers are adapted.
    config: a TTLoraConfig, or a dictionary adapter -> config.
    adapter_name: name of the adapter.
    """

    prefix = "tt_lora_"
    tuner_layer_cls = TTLoraLinear

    def new_layer(self, base_layer: nn.Module, adapter_name: str, config: TTLoraConfig, layer: str) -> TTLoraLinear:
        return TTLoraLinear(base_layer, adapter_name, config, layer, **get_quantization_kwargs(self))
