"""Quantised base layers: which backend a layer has, and how a merged weight is quantised and taken back.

peft says what the layers of bitsandbytes, torchao and others are. For those that have been tried, the backends here
give the weight in float32, quantise another one, and put the old parameter back to the bit. Other backends compute
beside an adapter, and merging is refused.
"""

import copy
from typing import Any

import torch
from peft.utils import resolve_quantization_backend
from peft.utils.quantization_utils import (
    Bnb4bitBackend,
    Bnb8bitBackend,
    ForwardOnlyQuantizationBackend,
    QuantizationBackend,
    TorchaoBackend,
)
from torch import nn
from transformers.pytorch_utils import Conv1D


class MergingBackend(QuantizationBackend):
    """Base class: a backend into whose weights can be merged."""

    supports_merge = True
    layer_type = "linear"

    def weight_of(self, layer: nn.Module) -> nn.Parameter:
        """The quantised weight, together with all that is needed to put it back."""
        return layer.weight

    def dequantised(self, weight: nn.Parameter) -> torch.Tensor:
        """What `weight_of` has returned as an ordinary tensor: (out_features, in_features)."""
        return weight.dequantize()

    def quantise(self, layer: nn.Module, value: torch.Tensor) -> None:
        """Give the layer a new parameter, quantised as the old one was, and leave that one as it is.

        value: (out_features, in_features), float32.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement quantise")

    def put_back(self, layer: nn.Module, weight: nn.Parameter) -> None:
        """Undo `quantise`. weight: what `weight_of` had returned before it."""
        # A conversion of the model, while the parameter was a buffer, may have made a plain tensor of it.
        layer.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False)

    def get_base_weight(self, base_layer: nn.Module) -> torch.Tensor:
        return self.dequantised(self.weight_of(base_layer))

    def set_base_weight(self, peft_layer: Any, weight_data: torch.Tensor) -> None:
        self.quantise(peft_layer.get_base_layer(), weight_data.float())


class Bnb4bit(MergingBackend):
    """Linear4bit of bitsandbytes. peft's own backend reads the layout of the CPU kernel as if it were the usual one."""

    backend_name = Bnb4bitBackend.backend_name

    def dequantised(self, weight: nn.Parameter) -> torch.Tensor:
        from bitsandbytes.functional import dequantize_4bit

        data, state = weight.data, copy.copy(weight.quant_state)
        if getattr(state, "packing_format_for_cpu", False):
            data, state = _unpacked(data, state)
        state.dtype = torch.float32
        return dequantize_4bit(data, state)

    def quantise(self, layer: nn.Module, value: torch.Tensor) -> None:
        from bitsandbytes.nn import Params4bit

        old = layer.weight
        options = {name: getattr(old, name) for name in ("blocksize", "compress_statistics", "quant_type")}
        new = Params4bit(value, quant_storage=old.quant_storage, module=layer, **options).to(old.device)
        state = old.quant_state
        new.quant_state.dtype = getattr(state, "original_dtype", state.dtype)
        layer.weight = new

    def put_back(self, layer: nn.Module, weight: nn.Parameter) -> None:
        layer.weight, layer.quant_state = weight, weight.quant_state


def _unpacked(data: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    """The usual layout of a weight that bitsandbytes has rearranged for its CPU kernel, as it does in evaluation.

    It takes the scales in bfloat16, (in_features / blocksize, out_features), for that. state: changed.
    """
    from bitsandbytes.functional import _convert_weight_packed_for_cpu_inverse

    state.original_nested = False  # the scales are not quantised a second time
    data, state = _convert_weight_packed_for_cpu_inverse(data, state)
    state.absmax = state.absmax.t().reshape(-1).float()
    return data, state


class Bnb8bit(MergingBackend):
    """Linear8bitLt of bitsandbytes. Its first forward pass moves the scales from the parameter to the layer."""

    backend_name = Bnb8bitBackend.backend_name

    def weight_of(self, layer: nn.Module) -> nn.Parameter:
        if layer.weight.SCB is None:
            layer.weight.SCB = layer.state.SCB
        return layer.weight

    def dequantised(self, weight: nn.Parameter) -> torch.Tensor:
        from bitsandbytes.functional import int8_vectorwise_dequant

        return weight.data if weight.has_fp16_weights else int8_vectorwise_dequant(weight.data, weight.SCB)

    def quantise(self, layer: nn.Module, value: torch.Tensor) -> None:
        from bitsandbytes.nn import Int8Params

        old = layer.weight
        value = value.to("cpu", old.dtype if old.has_fp16_weights else None)
        options = {"has_fp16_weights": old.has_fp16_weights, "requires_grad": old.requires_grad}
        layer.weight = Int8Params(value, **options).to(old.device)
        layer.state.reset_grads()

    def put_back(self, layer: nn.Module, weight: nn.Parameter) -> None:
        if not weight.has_fp16_weights:
            weight.CB = weight.data  # as in a layer that has not computed yet
        layer.weight = weight
        layer.state.reset_grads()


class TorchAo(MergingBackend):
    """nn.Linear with a tensor of torchao as its weight, in a model that transformers has quantised.

    config: what was handed to TorchAoConfig.
    """

    backend_name = TorchaoBackend.backend_name

    def __init__(self, config: Any):
        self.config = config

    def quantise(self, layer: nn.Module, value: torch.Tensor) -> None:
        from torchao import quantize_

        layer.weight = nn.Parameter(value.to(layer.weight.dtype), requires_grad=False)
        quantize_(layer, self.config)


class Quanto(MergingBackend):
    """QLinear of optimum-quanto with a frozen weight, which peft takes for an nn.Linear."""

    backend_name = "quanto"

    def quantise(self, layer: nn.Module, value: torch.Tensor) -> None:
        layer.weight = nn.Parameter(value.to(layer.weight.dtype), requires_grad=False)
        layer.freeze()
        layer.weight.requires_grad_(False)


def backend_of(layer: nn.Module, **options: Any) -> QuantizationBackend | None:
    """Return the backend of a base layer; None: it is not quantised.

    options: what peft's get_quantization_kwargs returns for the model.
    """
    weight = getattr(layer, "weight", None)
    if type(layer) in (nn.Linear, Conv1D) and type(weight) is nn.Parameter:
        return None  # without asking peft, whose older versions fail to import recent ones of torchao
    kind = type(weight).__module__.partition(".")[0]
    if kind == "torchao":
        return _backend_of_torchao(options.get("get_apply_tensor_subclass"))
    if kind == "optimum":
        return Quanto()
    backend = resolve_quantization_backend(layer, **options)
    if isinstance(backend, Bnb4bitBackend):
        return Bnb4bit()
    return Bnb8bit() if isinstance(backend, Bnb8bitBackend) else backend


def _backend_of_torchao(quantisation: Any) -> QuantizationBackend:
    config = None if quantisation is None else quantisation()
    if config is None or hasattr(config, "fqn_to_config"):  # the latter says one thing for each layer's name
        return ForwardOnlyQuantizationBackend(TorchaoBackend.backend_name)
    return TorchAo(config)


def check_mergeable(layer: Any) -> None:
    """Raise ValueError if nothing can be merged into the weight of a layer with adapters."""
    backend, weight = layer.quantization_backend, layer.get_base_layer().weight
    what = f"{type(layer).__name__}: nothing can be merged into this weight"
    if backend is None and not isinstance(weight, nn.Parameter):
        raise ValueError(f"{what}, which is computed from others; remove its parametrization first")
    if backend is None or isinstance(backend, MergingBackend):
        return
    hint = (
        "load it with transformers' TorchAoConfig, one for all layers, or " if backend.backend_name == "torchao" else ""
    )
    raise ValueError(f"{what} quantised by {backend.backend_name}; {hint}merge into the model before it is quantised")
