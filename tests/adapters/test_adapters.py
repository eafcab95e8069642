"""Every method of the registry: shapes, start, gradients, and the exact errors of its configuration."""

import pytest
import torch
from torch import nn

from adapters import (
    AFTER_SUBLAYER_METHODS,
    AdapterConfig,
    AdapterController,
    ConfigError,
    TaskSwitch,
    TensorTrainLinear,
    build_adapter,
)
from adapters.activations import ACTIVATIONS

METHODS = sorted(AFTER_SUBLAYER_METHODS)
STARTS_AT_ZERO = {"tensor_train_adapters", "tensor_train_single"}


def config_for(method: str, **keys) -> AdapterConfig:
    flags = {} if method == "adapters" else {method: True}
    if method == "tensor_train_single":
        flags["tensor_train_adapters"] = True
    return AdapterConfig(train_task_adapters=True, **flags, **keys)


@pytest.mark.parametrize("method", METHODS)
def test_the_flag_chooses_the_class(method):
    config = config_for(method)
    assert config.method == method
    assert type(build_adapter(config, 48)) is AFTER_SUBLAYER_METHODS[method]


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("method", METHODS)
def test_shape_start_and_gradients(method, activation):
    torch.manual_seed(0)
    adapter = build_adapter(config_for(method, non_linearity=activation, task_reduction_factor=4), 48)
    y = torch.randn(2, 5, 48)
    update = adapter(y)
    assert update.shape == y.shape
    if method in STARTS_AT_ZERO and activation != "sigmoid":
        assert not update.any()
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (adapter(y) - 1).square().mean().backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in adapter.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("d_model", [1, 7, 32, 512, 768, 1024])
def test_defaults_build_on_any_size(method, d_model):
    adapter = build_adapter(config_for(method), d_model)
    assert adapter(torch.randn(2, d_model)).shape == (2, d_model)


@pytest.mark.parametrize("method", METHODS)
def test_no_bias_means_no_bias(method):
    adapter = build_adapter(config_for(method, use_bias=False), 48)
    assert not [name for name, _ in adapter.named_parameters() if "bias" in name]


def test_tensor_train_adapter_is_its_dense_formula():
    torch.manual_seed(0)
    adapter = build_adapter(config_for("tensor_train_adapters", task_expansion_factor=2, tt_rank=3), 24).double()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    y = torch.randn(5, 24, dtype=torch.float64)
    down, up = (layer.weight.full() for layer in (adapter.down_sampler, adapter.up_sampler))
    hidden = nn.functional.gelu(y @ down + adapter.down_sampler.bias, approximate="tanh")
    assert down.shape == (24, 48)
    assert torch.allclose(adapter(y), hidden @ up + adapter.up_sampler.bias)


def test_shape_keys():
    def shape(**keys):
        layer = TensorTrainLinear(AdapterConfig(**keys), 768, 24)
        return layer.weight.raw_shape

    assert shape() == ((8, 8, 12), (2, 3, 4))
    assert shape(reverse_out_shape=True) == ((8, 8, 12), (4, 3, 2))
    assert shape(auto_shape_mode="descending", tt_d=2) == ((32, 24), (6, 4))
    assert shape(auto_shape_mode="skewed", tt_d=2) == ((96, 8), (8, 3))
    assert shape(factorize_smaller_dim=False) == ((8, 8, 12), (1, 1, 24))
    with_shape = config_for("tensor_train_adapters", tt_shape=[[16, 48], [4, 6]])
    adapter = build_adapter(with_shape, 768)
    assert adapter.down_sampler.weight.raw_shape == ((16, 48), (4, 6))
    assert adapter.up_sampler.weight.raw_shape == ((4, 6), (16, 48))


@pytest.mark.parametrize("method", METHODS)
def test_controller_runs_the_adapter_of_the_task(method):
    torch.manual_seed(0)
    switch = TaskSwitch(["a", "b.c"])
    config = config_for(method, add_layer_norm_before_adapter=True, add_layer_norm_after_adapter=True)
    controller = AdapterController(config, 24, switch)
    for parameter in controller.parameters():
        nn.init.normal_(parameter)
    y = torch.randn(3, 24)
    with switch.pinned("b.c"):
        got = controller(y)
        norm = nn.functional.layer_norm
        pre, post = controller.pre_layer_norm, controller.post_layer_norm
        inner = controller.adapters["b_c"](norm(y, (24,), pre.weight, pre.bias))
    assert torch.allclose(got, y + norm(inner, (24,), post.weight, post.bias))
    with switch.pinned("a"):
        assert not torch.allclose(controller(y), got)
    with pytest.raises(ValueError, match="name one of: a, b.c"):
        controller(y)
    with pytest.raises(ValueError, match="task is 'd'"), switch.pinned("d"):
        pass


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (
            {"train_task_adapters": True, "tensor_train_adapters": True, "low_rank_adapters": True},
            "one site carries one",
        ),
        ({"tensor_train_adapters": True}, "set train_task_adapters to true"),
        ({"train_task_adapters": True, "tensor_train_single": True}, "set tensor_train_adapters to true"),
        (
            {
                "train_task_adapters": True,
                "add_adapter_in_self_attention": False,
                "add_adapter_in_feed_forward": False,
            },
            "no sublayer carries an adapter",
        ),
        ({"train_task_adapters": True, "freeze_backbone": False}, "freeze_backbone is false"),
        ({"tt_rank": 0}, "tt_rank is 0"),
        ({"tt_d": -1}, "tt_d is -1"),
        ({"task_reduction_factor": 0}, "task_reduction_factor is 0"),
        ({"task_expansion_factor": 0}, "task_expansion_factor is 0"),
        ({"low_rank_rank": 0}, "low_rank_rank is 0"),
        ({"non_linearity": "rely"}, "non_linearity is 'rely'; allowed: gelu,"),
        ({"auto_shape_mode": "skewed"}, "tt_d is 3; with auto_shape_mode skewed it must be 2"),
        ({"auto_shape_mode": "skewed", "tt_d": 2, "reverse_out_shape": True}, "reverse_out_shape is True; with"),
        ({"auto_shape_mode": "up"}, "auto_shape_mode is 'up'; allowed: ascending"),
        ({"tt_shape": [[2, 3], [4]]}, "tt_shape: shape [2, 3] -> [4]"),
        ({"tasks": ()}, "tasks is empty"),
    ],
)
def test_conflicts_name_the_key_and_what_is_allowed(keys, words):
    with pytest.raises(ConfigError) as error:
        AdapterConfig(**keys)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_shape_that_does_not_fit_the_dimension():
    with pytest.raises(ConfigError, match="tt_shape: .* multiply to 256, the input dimension is 768"):
        build_adapter(config_for("tensor_train_adapters", tt_shape=[[16, 16], [4, 6]]), 768)
