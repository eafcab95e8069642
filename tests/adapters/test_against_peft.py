"""Our LoRA and peft's, with the same weights: the same outputs and the same gradients."""

import copy

import pytest
import torch

from adapters import AdapterConfig
from adapters.lora import LoRABranch
from adapters.merging import branched
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import modify_model_after_init

peft = pytest.importorskip("peft")

CASES = {
    "feed-forward": ("relu", None, ["wi", "wo"]),
    "gated feed-forward": ("gated-gelu", None, ["wi_0", "wi_1", "wo"]),
    "attention": ("relu", ["q", "v"], ["q", "v"]),
}
TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-12}


@pytest.fixture(params=CASES)
def models(request, tiny_config):
    """(ours, peft's) in float64 and in training mode, with the same random weights everywhere."""
    projection, our_targets, targets = CASES[request.param]
    torch.manual_seed(0)
    keys = tiny_config.to_dict() | {"feed_forward_proj": projection}
    for derived in ("is_gated_act", "dense_act_fn"):  # they would overrule feed_forward_proj
        del keys[derived]
    backbone = T5ForConditionalGeneration(T5Config(**keys))
    config = AdapterConfig(use_LoRA=True, lora_rank=4, lora_alpha=6, lora_dropout=0.0, lora_targets=our_targets)
    ours = modify_model_after_init(copy.deepcopy(backbone), config)
    theirs = peft.get_peft_model(backbone, peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=0.0, target_modules=targets))
    for name, branch in our_branches(ours).items():
        torch.nn.init.normal_(branch.B, std=0.1)
        for factor, weight in factors(branch, theirs, name):
            weight.data.copy_(factor)
    return ours.double().train(), theirs.double().train()


def our_branches(model) -> dict[str, LoRABranch]:
    return {name: layer.branch for name, layer in branched(model)}


def factors(branch: LoRABranch, theirs, name: str):
    """Pairs of our factor and peft's."""
    layer = theirs.get_base_model().get_submodule(name)
    return [(branch.A, layer.lora_A["default"].weight), (branch.B, layer.lora_B["default"].weight)]


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    distance = torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)
    assert distance <= TOLERANCES[found.dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_same_outputs_and_gradients(models, batch, dtype):
    ours, theirs = (model.to(dtype) for model in models)
    outputs = [model(**batch) for model in (ours, theirs)]
    for output in outputs:
        output.loss.backward()
    assert_near(outputs[0].logits, outputs[1].logits)
    trained = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (ours, theirs)]
    assert trained[0] == trained[1] > 0
    for name, branch in our_branches(ours).items():
        for factor, weight in factors(branch, theirs, name):
            assert weight.grad.any()
            assert_near(factor.grad, weight.grad)


@torch.no_grad()
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_same_outputs_when_merged(models, batch, dtype):
    ours, theirs = (model.to(dtype).eval() for model in models)
    theirs.merge_adapter()
    assert ours.merged
    assert_near(ours(**batch).logits, theirs(**batch).logits)
    for name, layer in branched(ours):
        assert_near(layer.merged_weight(), theirs.get_base_model().get_submodule(name).weight)
