"""Bottleneck adapters of tensor trains after a linear layer: y + f(y D + c) U + e, y the layer's output.

D: (size, hidden) and U: (hidden, size) are TT-matrices, hidden = size / reduction_factor, f an activation.
The adapter of Houlsby et al. 2019 (https://arxiv.org/abs/1902.00751) with tensor
trains, as in LoRETTA's adapters (Yang et al. 2024, https://arxiv.org/abs/2402.11417). Behind the output layers of
attention and feed-forward it is the adapter after a sublayer. D starts at random with Glorot's variance, U and the
biases at zero. It is not linear, so it cannot be merged.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from peft.utils import get_quantization_kwargs
from torch import nn
from transformers.activations import ACT2FN

from t3nsor.contraction.ops import contract_cores
from t3nsor_peft.config import TTConfig, check_flag, check_whole
from t3nsor_peft.cores import CoreShape, NamedCores, computable, initial_cores
from t3nsor_peft.layer import AdaptedLayer
from t3nsor_peft.model import TrainTuner
from t3nsor_peft.registration import peft_type

TRAINED_ACTIVATIONS = ("prelu", "xielu")  # with parameters of their own


@dataclass
class TTAdapterConfig(TTConfig):
    """Bottleneck adapters of tensor trains. The fields say more. Raises ValueError for values out of range."""

    reduction_factor: int = field(
        default=16, metadata={"help": "The hidden width is the size of the layer's output / reduction_factor."}
    )
    non_linearity: str = field(default="gelu_new", metadata={"help": "Activation of the hidden layer, as in ACT2FN."})
    init_weights: bool = field(default=True, metadata={"help": "True: U starts at zero. False: all cores are random."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type("TT_ADAPTER")
        check_whole("reduction_factor", self.reduction_factor)
        check_flag("init_weights", self.init_weights)
        allowed = [name for name in ACT2FN if name not in TRAINED_ACTIVATIONS]
        if self.non_linearity not in allowed:
            raise ValueError(f"non_linearity is {self.non_linearity!r}; allowed: {', '.join(allowed)}")

    def core_shape(self, layer: str, in_features: int, out_features: int) -> CoreShape:
        """The shape of D; U has it swapped."""
        return super().core_shape(layer, out_features, max(1, out_features // self.reduction_factor))


class TTAdapterLinear(AdaptedLayer):
    """base(x) and an adapter of it. State-dict keys: `tt_adapter_down.ADAPTER.core_0`, .. `tt_adapter_up_bias.ADAPTER`.

    layer: the name of this layer in the model, by which the configuration knows its shape.
    """

    adapter_layer_names = ("tt_adapter_down", "tt_adapter_down_bias", "tt_adapter_up", "tt_adapter_up_bias")
    other_param_names = ("activations", "rings")

    def __init__(
        self, base_layer: nn.Module, adapter_name: str, config: TTAdapterConfig, layer: str, **quantization: Any
    ):
        super().__init__(base_layer, adapter_name, **quantization)
        self.tt_adapter_down, self.tt_adapter_up = nn.ModuleDict(), nn.ModuleDict()
        self.tt_adapter_down_bias, self.tt_adapter_up_bias = nn.ParameterDict(), nn.ParameterDict()
        self.activations: dict[str, str] = {}
        self.rings: dict[str, bool] = {}
        self.update_layer(adapter_name, config, layer)

    def update_layer(self, adapter_name: str, config: TTAdapterConfig, layer: str) -> None:
        """Add an adapter."""
        shape = config.core_shape(layer, self.in_features, self.out_features)
        config.layer_shapes[layer] = shape.to_json()
        frozen = config.frozen_cores(len(shape.rows))
        down = initial_cores(shape, config.ring, frozen, zero=False)
        up = initial_cores(CoreShape(shape.columns, shape.rows, shape.ranks), config.ring, frozen, config.init_weights)
        self.tt_adapter_down[adapter_name], self.tt_adapter_up[adapter_name] = (
            NamedCores(cores, frozen) for cores in (down, up)
        )
        hidden = torch.Size(shape.columns).numel()
        self.tt_adapter_down_bias[adapter_name] = nn.Parameter(torch.zeros(hidden))
        self.tt_adapter_up_bias[adapter_name] = nn.Parameter(torch.zeros(self.out_features))
        self.activations[adapter_name], self.rings[adapter_name] = config.non_linearity, config.ring
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=config.inference_mode)

    def has_adapter(self, adapter: str) -> bool:
        return adapter in self.tt_adapter_down

    def change(self, x: torch.Tensor, y: torch.Tensor, adapter: str) -> torch.Tensor:
        def times(rows: torch.Tensor, cores: NamedCores, bias: torch.Tensor) -> torch.Tensor:
            return contract_cores(rows, computable(cores(), rows), self.rings[adapter], bias=bias.to(rows.dtype))

        hidden = times(y, self.tt_adapter_down[adapter], self.tt_adapter_down_bias[adapter])
        hidden = ACT2FN[self.activations[adapter]](hidden)
        return times(hidden, self.tt_adapter_up[adapter], self.tt_adapter_up_bias[adapter])


class TTAdapterModel(TrainTuner):
    """The tuner of tensor-train adapters; arguments as for `TTLoraModel`."""

    prefix = "tt_adapter_"
    tuner_layer_cls = TTAdapterLinear

    def new_layer(
        self, base_layer: nn.Module, adapter_name: str, config: TTAdapterConfig, layer: str
    ) -> TTAdapterLinear:
        return TTAdapterLinear(base_layer, adapter_name, config, layer, **get_quantization_kwargs(self))

    def _check_merge_allowed(self) -> None:
        raise ValueError("tensor-train adapters have an activation, so they cannot be merged into a weight")
