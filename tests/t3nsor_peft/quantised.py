"""The tiny Llama with quantised linear layers: quantised by hand, or loaded by transformers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, QuantoConfig, TorchAoConfig

from tests.t3nsor_peft.models import ARCHITECTURES


@dataclass(frozen=True)
class Base:
    """A way to quantise.

    package: what it needs.
    by_hand: quantises all layers of a model but lm_head, in place.
    config: what transformers' from_pretrained does the same with.
    error: at most the relative error of a weight that is quantised once more.
    """

    package: str
    by_hand: Callable[[nn.Module], None]
    config: Callable[[], Any]
    error: float

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        pytest.importorskip(self.package)
        model = ARCHITECTURES["llama"].model().to(dtype).requires_grad_(False)
        self.by_hand(model)
        return model.eval()

    def loaded(self, directory, dtype: torch.dtype = torch.float32) -> nn.Module:
        pytest.importorskip(self.package)
        options = {"quantization_config": self.config(), "device_map": "cpu", "dtype": dtype}
        return AutoModelForCausalLM.from_pretrained(directory, **options).eval()


def replace_linears(model: nn.Module, build: Callable[[nn.Linear], nn.Module]) -> None:
    names = [name for name, module in model.named_modules() if type(module) is nn.Linear and name != "lm_head"]
    for name in names:
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, build(model.get_submodule(name)))


def four_bit(linear: nn.Linear, nested: bool = True) -> nn.Module:
    from bitsandbytes.nn import Linear4bit

    sizes = linear.in_features, linear.out_features
    layer = Linear4bit(*sizes, bias=False, quant_type="nf4", compress_statistics=nested)
    layer.load_state_dict(linear.state_dict())
    layer.weight.data = layer.weight.data.to(linear.weight.dtype)
    return layer.to("cpu")


def eight_bit(linear: nn.Linear) -> nn.Module:
    from bitsandbytes.nn import Linear8bitLt

    layer = Linear8bitLt(linear.in_features, linear.out_features, bias=False, has_fp16_weights=False)
    layer.load_state_dict(linear.state_dict())
    return layer.requires_grad_(False).to("cpu")


def by_torchao(model: nn.Module) -> None:
    from torchao import quantize_
    from torchao.quantization import Int8WeightOnlyConfig

    quantize_(model.model, Int8WeightOnlyConfig())


def torchao_config() -> TorchAoConfig:
    from torchao.quantization import Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


def by_quanto(model: nn.Module) -> None:
    from optimum import quanto

    quanto.quantize(model, weights=quanto.qint8, exclude="lm_head")
    quanto.freeze(model)


BASES = {
    "bitsandbytes nf4": Base(
        "bitsandbytes",
        lambda model: replace_linears(model, four_bit),
        lambda: BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
        0.12,
    ),
    "bitsandbytes int8": Base(
        "bitsandbytes",
        lambda model: replace_linears(model, eight_bit),
        lambda: BitsAndBytesConfig(load_in_8bit=True),
        0.01,
    ),
    "torchao int8": Base("torchao", by_torchao, torchao_config, 0.01),
    "quanto int8": Base("optimum.quanto", by_quanto, lambda: QuantoConfig(weights="int8"), 0.01),
}


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    """All that is stored for the parameters of the base model, copied."""
    found = {}
    for name, parameter in model.named_parameters():
        if "tt_" not in name:
            inner = parameter.__tensor_flatten__()[0] if hasattr(parameter, "__tensor_flatten__") else ()
            stored = [getattr(parameter, attribute) for attribute in inner] or [parameter.data]
            found |= {f"{name}.{k}": tensor.detach().clone() for k, tensor in enumerate(stored)}
    return found


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
