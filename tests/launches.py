"""How many kernels methods launch, in a layer and in a block of T5-base; run on the pretended accelerator."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn

from adapters import AdapterConfig, Place, SharedParts, build, sites
from tests.accelerator import Watcher, move, on_device
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import modify_model_after_init

BASE = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "vocab_size": 64, "decoder_start_token_id": 0}


def of_block(name: str) -> float:
    """The kernels that a training step launches for each block of T5-base, relative to peft's LoRA."""
    return _launches_a_block(LAUNCHING[name]) / _launches_a_block(LAUNCHING["peft LoRA"])


@cache
def _backbone(cls: type[nn.Module], depth: int) -> nn.Module:
    """A random backbone, to be copied: drawing its numbers takes as long as a training step."""
    return cls(T5Config(**BASE, num_layers=depth))


def _adapted(depth: int, **keys: object) -> nn.Module:
    return modify_model_after_init(deepcopy(_backbone(T5ForConditionalGeneration, depth)), AdapterConfig(**keys))


def _with_peft(depth: int) -> nn.Module:
    backbone = deepcopy(_backbone(transformers.T5ForConditionalGeneration, depth))
    return get_peft_model(backbone, LoraConfig(r=8, target_modules=["wi", "wo"]))


TT, AFTER = {"use_TTLoRA": True, "tt_rank": 8, "tt_d": 2}, {"train_task_adapters": True}
SUBSPACE = {"intrinsic_model": True, "intrinsic_dim": 3000}
LAUNCHING: dict[str, Callable[[int], nn.Module]] = {
    "peft LoRA": _with_peft,
    "LoRA": partial(_adapted, use_LoRA=True, lora_rank=8),
    "square": partial(_adapted, **TT),
    "skewed": partial(_adapted, **TT, auto_shape_mode="skewed"),
    "d3": partial(_adapted, **{**TT, "tt_d": 3}),
    "cross-layer": partial(_adapted, **TT, tt_cross_layer=True),
    "bottleneck": partial(_adapted, **AFTER),
    "compacter": partial(_adapted, **AFTER, hypercomplex_adapters=True, shared_phm_rule=True, factorized_phm=True),
    "TT adapter": partial(_adapted, **AFTER, tensor_train_adapters=True, tt_rank=8, tt_d=3),
    "intrinsic": partial(_adapted, **SUBSPACE),
    "intrinsic said": partial(_adapted, **SUBSPACE, intrinsic_said=True),
}


@cache
def _launches_a_block(build: Callable[[int], nn.Module]) -> int:
    """What a second block of both stacks adds to a training step of 512 source and 64 target tokens."""
    one, two = (sum(_launched(build, depth).values()) for depth in (1, 2))
    return two - one


def _launched(build: Callable[[int], nn.Module], depth: int) -> Counter:
    model = move(build(depth).train())
    batch = {"input_ids": torch.ones(8, 64, dtype=torch.long), "labels": torch.ones(8, 8, dtype=torch.long)}
    batch = {name: on_device(tensor) for name, tensor in batch.items()}
    with Watcher() as watcher:
        model(**batch, use_cache=False).loss.backward()
        assert not any("copied" in stall for stall in watcher.stalls)
    return watcher.launched


LAYERS = {
    "LoRA": {"use_LoRA": True, "lora_rank": 8},
    "square": TT,
    "skewed": {**TT, "auto_shape_mode": "skewed"},
    "d3": {**TT, "tt_d": 3},
    "svd": {**TT, "TTLoRA_init": "svd"},
    "cross-layer": {**TT, "tt_cross_layer": True},
}


def of_layer(name: str) -> int:
    """The kernels of a linear layer 768 -> 3072 with a branch, forward and backward, with 512 rows."""
    linear = nn.Linear(768, 3072, bias=False).requires_grad_(False)
    if name == "peft LoRA":
        layer = get_peft_model(nn.Sequential(linear), LoraConfig(target_modules=["0"]))
    else:
        place = Place("wi", 0, 12, ("wi", "wo"))
        layer = build(AdapterConfig(**LAYERS[name]), sites.BESIDE_LINEAR, linear, place, SharedParts())
    layer, weight = move(layer), on_device(linear.weight.detach())
    x, g = on_device(torch.ones(512, 768)).requires_grad_(), on_device(torch.ones(512, 3072))
    with Watcher() as watcher:
        y = layer(x) if name == "peft LoRA" else layer.layer_output(x, weight, None)
        y.backward(g)
    return sum(watcher.launched.values())
