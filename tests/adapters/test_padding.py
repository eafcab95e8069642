"""tt_pad: adapters of a model whose sizes are primes."""

import pytest
import torch
from torch import nn

from adapters import AdapterConfig, TaskSwitch
from adapters.norms import TTLayerNorm
from adapters.parts import Place, SharedParts
from adapters.registry import build
from adapters.sites import AFTER_SUBLAYER, BESIDE_LINEAR, INSTEAD_OF_NORM
from adapters.tensor_train_linear import TensorTrainLinear
from tests.methods import BESIDE, CASES, changed, config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init

CHAINS = [case for case in BESIDE if "tt" in CASES[case][0].lower()]
KEYS = {"tt_pad": True, "tt_rank": 2, "lora_rank": 7, "ttlora_reduction_factor": None}


@pytest.mark.parametrize("sizes", [(47, 53), (53, 47)])
@pytest.mark.parametrize("case", CHAINS)
def test_padded_branches_are_their_matrices(case, sizes):
    torch.manual_seed(0)
    linear = nn.Linear(*sizes).requires_grad_(False).double()
    config = config_for(case, **KEYS)
    branch = build(config, BESIDE_LINEAR, linear, Place(), SharedParts()).double()
    x = torch.randn(2, 3, sizes[0], dtype=torch.float64)
    assert torch.allclose(branch.layer_output(x, linear.weight, linear.bias), linear(x), atol=1e-5)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter += 0.1 * torch.randn_like(parameter) * parameter.requires_grad
    y = branch.layer_output(x, linear.weight, linear.bias)
    assert not torch.allclose(y, linear(x), atol=1e-4)
    if branch.unmergeable is None:
        assert branch.delta(torch.float64).shape == linear.weight.shape
        merged = branch.merged(linear.weight)
        assert torch.allclose(y, x @ merged.T + linear.bias)


def test_padded_adapters_norms_and_biases():
    keys = {"train_task_adapters": True, "tensor_train_adapters": True, "use_TTBias": True, "task_reduction_factor": 2}
    config = AdapterConfig(**keys, tt_pad=True, tt_rank=2)
    adapter = build(config, AFTER_SUBLAYER, 47, SharedParts())
    assert adapter(torch.randn(3, 47)).shape == (3, 47)
    assert adapter.up_sampler.weight.shape[1] > 47
    assert adapter.up_sampler.tt_bias.full().shape == (47,)
    norm = nn.LayerNorm(47, elementwise_affine=True)
    norm.variance_epsilon = 1e-6
    nn.init.uniform_(norm.weight)
    config = AdapterConfig(use_TTLayerNorm=True, TTLayerNorm_preinit=True, TTLayerNorm_rk=8, tt_pad=True)
    padded = build(config, INSTEAD_OF_NORM, norm, SharedParts(), TaskSwitch(["task"]))
    assert isinstance(padded, TTLayerNorm)
    assert torch.allclose(padded.full(), norm.weight, atol=1e-5)


def test_larger_layers_are_said_once_with_their_key(capsys):
    config = AdapterConfig(use_TTLoRA=True, tt_d=2, tt_rank=5)
    with torch.device("meta"):
        TensorTrainLinear(config, 61, 67)
    assert not capsys.readouterr().err
    for _ in range(2):
        TensorTrainLinear(config, 61, 67)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: tt_d: TensorTrainLinear 61 -> 67 has ")
    assert "pad=True" in line


@pytest.mark.parametrize(
    "keys",
    [
        {"use_TTLoRA": True, "TTLoRA_init": "svd", "tensor_ring": True},
        {"use_TTLoRA": True, "tt_cross_layer": True},
        {"train_task_adapters": True, "tensor_train_adapters": True, "use_TTLayerNorm": True, "use_TTBias": True},
    ],
    ids=str,
)
def test_a_padded_model_is_merged_and_loaded(keys, tiny_config, batch, tmp_path):
    config = changed(tiny_config, d_model=47, d_ff=53)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "base")
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    model = moved(
        modify_model_after_init(model, AdapterConfig(tt_pad=True, tt_rank=2, task_reduction_factor=2, **keys))
    )
    parallel = logits(model.train(), batch)
    merged = logits(model.eval(), batch)
    assert torch.allclose(merged, parallel, atol=1e-4)
    model.save_adapter(tmp_path / "adapter")
    loaded = T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter").eval()
    assert torch.equal(logits(loaded, batch), merged)
