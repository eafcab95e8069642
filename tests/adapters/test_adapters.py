"""The layers of every method on their own: shapes, start, gradients, formulas, and sizes that do not fit."""

import pytest
import torch
from torch import nn

import t3nsor
from adapters import (
    AdaptedLinear,
    AdapterConfig,
    AdapterController,
    Place,
    SharedParts,
    TaskSwitch,
    TensorTrainLinear,
    build,
)
from adapters.activations import ACTIVATIONS
from adapters.hypercomplex import HypercomplexLinear
from adapters.sites import AFTER_SUBLAYER, BESIDE_LINEAR, INSTEAD_OF_NORM
from common.errors import ConfigError
from tests.methods import AFTER, BESIDE, CASES, FLAGS, NORMS, config_for

STARTS_AT_ZERO = {"tensor_train_adapters", "tensor_train_single"}


def adapter_of(config: AdapterConfig, d_model: int) -> nn.Module:
    return build(config, AFTER_SUBLAYER, d_model, SharedParts())


def branch_of(config: AdapterConfig, linear: nn.Linear, target: str = "wi") -> nn.Module:
    return build(config, BESIDE_LINEAR, linear, Place(target, 1, 3, ("wi", "wo", "k")), SharedParts())


def norm_of(config: AdapterConfig, size: int) -> nn.Module:
    norm = nn.RMSNorm(size)
    norm.variance_epsilon = 1e-6
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return build(config, INSTEAD_OF_NORM, norm, SharedParts(), TaskSwitch(["task"])), norm


def train_a_little(layer: nn.Module, x: torch.Tensor, forward=None) -> None:
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for _ in range(4):
        optimizer.zero_grad()
        ((forward or layer)(x) - 1).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("case", AFTER)
def test_shape_start_and_gradients_after_a_sublayer(case, activation):
    torch.manual_seed(0)
    adapter = adapter_of(config_for(case, non_linearity=activation), 48)
    y = torch.randn(2, 5, 48)
    update = adapter(y)
    assert update.shape == y.shape
    if CASES[case][0] in STARTS_AT_ZERO and activation != "sigmoid":
        assert not update.any()
    train_a_little(adapter, y)
    assert all(parameter.grad.any() for parameter in adapter.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("sizes", [(32, 48), (48, 32), (24, 24)])
@pytest.mark.parametrize("case", BESIDE)
def test_shape_start_and_gradients_beside_a_linear(case, sizes):
    torch.manual_seed(0)
    linear = nn.Linear(*sizes).requires_grad_(False)
    target = "k" if sizes[0] == 24 else "wo" if sizes[0] == 48 else "wi"
    branch = branch_of(config_for(case), linear, target)
    x = torch.randn(2, 5, sizes[0])
    y = branch.layer_output(x, linear.weight, linear.bias)
    assert y.shape == (2, 5, sizes[1])
    assert torch.allclose(y, linear(x), atol=1e-6)
    train_a_little(branch, x, lambda x: branch.layer_output(x, linear.weight, linear.bias))
    assert all(parameter.grad.any() for parameter in branch.parameters() if parameter.requires_grad)
    y = branch.layer_output(x, linear.weight, linear.bias)
    assert not torch.allclose(y, linear(x), atol=1e-3)
    if branch.unmergeable is None:
        merged = branch.double().merged(linear.weight.double())
        assert torch.allclose(y.double(), x.double() @ merged.T + linear.bias, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in BESIDE if case != "ia3"])  # which scales, and has no dropout
def test_dropout_only_in_training(case):
    torch.manual_seed(0)
    linear = nn.Linear(32, 48).requires_grad_(False)
    branch = branch_of(config_for(case, lora_dropout=0.5), linear)
    x = torch.randn(64, 32)
    train_a_little(branch, x, lambda x: branch.layer_output(x, linear.weight, linear.bias))
    first, second = (branch.layer_output(x, linear.weight, linear.bias) for _ in range(2))
    assert not torch.equal(first, second)
    branch.eval()
    first, second = (branch.layer_output(x, linear.weight, linear.bias) for _ in range(2))
    assert torch.equal(first, second)


def test_the_scale_is_alpha_over_rank():
    linear = nn.Linear(32, 48)
    for case, rank in (("use_LoRA", 2), ("ttlora_separate", 2), ("use_TTLoRA", 2), ("lora_dense", 1)):
        assert branch_of(config_for(case, lora_alpha=3.0), linear).scale == 3 / rank
        assert branch_of(config_for(case), linear).scale == 1
    by_factor = branch_of(config_for("ttlora_separate", lora_alpha=3.0, ttlora_reduction_factor=8, tt_rank=5), linear)
    assert by_factor.scale == 3 / 5
    assert (by_factor.A.out_features, by_factor.B.in_features) == (4, 4)


@pytest.mark.parametrize("case", NORMS)
def test_norms_start_where_they_say(case):
    torch.manual_seed(0)
    layer, norm = norm_of(config_for(case), 48)
    x = torch.randn(2, 5, 48)
    expected = norm.weight.mean() if case.endswith("mean") else norm.weight if case.endswith("preinit") else 1.0
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    assert torch.allclose(layer(x), normed * expected, atol=1e-5)
    if case == "use_TTLayerNorm preinit":
        assert layer.preinit_error < 1e-5
    train_a_little(layer, x)
    assert all(parameter.grad.any() for parameter in layer.parameters())


@pytest.mark.parametrize("case", NORMS)
def test_norms_can_be_kept_as_they_start(case):
    layer, _ = norm_of(config_for(case, freeze_norms=True), 48)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_the_mean_wins_over_a_given_scale():
    layer, norm = norm_of(config_for("use_ScaleNorm", use_LayerNorm_mean=True, ScaleNorm_scale=5.0), 48)
    assert torch.allclose(layer.full(), norm.weight.mean())


def test_norms_train_what_they_state():
    """At small ranks TTLayerNorm lies between ScaleNorm and LayerNorm, at rank 10 no longer."""

    def count(**keys) -> int:
        return sum(p.numel() for p in norm_of(config_for(keys.pop("case"), **keys), 768)[0].parameters())

    assert count(case="use_ScaleNorm") == 1
    assert "112 parameters and 16 shared" in repr(norm_of(config_for("use_KroneckerLayerNorm"), 768)[0])
    assert count(case="use_KroneckerLayerNorm") == 4 * (12 + 16) + 4 * 4
    sizes = [count(case="use_TTLayerNorm", TTLayerNorm_rk=rank) for rank in (1, 2, 8, 10)]
    assert sizes == [28, 72, 672, 1000]
    assert sizes == [t3nsor.parameter_count((8, 8, 12), rank) for rank in (1, 2, 8, 10)]
    assert count(case="use_TTLayerNorm preinit", TTLayerNorm_rk=100) == 976


@pytest.mark.parametrize("case", ["adapters", "low_rank_adapters", "tensor_train_adapters", "tensor_train_single"])
@pytest.mark.parametrize("d_model", [1, 7, 32, 512, 768, 1024])
def test_defaults_build_on_any_size(case, d_model):
    flags = {FLAGS[case].name: True, "train_task_adapters": True, "tensor_train_adapters": case.startswith("tensor")}
    adapter = adapter_of(AdapterConfig(**flags), d_model)
    assert adapter(torch.randn(2, d_model)).shape == (2, d_model)


@pytest.mark.parametrize("case", AFTER)
def test_no_bias_means_no_bias(case):
    adapter = adapter_of(config_for(case, use_bias=False), 48)
    assert not [name for name, _ in adapter.named_parameters() if "bias" in name]


def test_tensor_train_adapter_is_its_dense_formula():
    torch.manual_seed(0)
    adapter = adapter_of(config_for("tensor_train_adapters", task_expansion_factor=2, tt_rank=3), 24).double()
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    y = torch.randn(5, 24, dtype=torch.float64)
    down, up = (layer.weight.full() for layer in (adapter.down_sampler, adapter.up_sampler))
    hidden = nn.functional.gelu(y @ down + adapter.down_sampler.bias, approximate="tanh")
    assert down.shape == (24, 48)
    assert torch.allclose(adapter(y), hidden @ up + adapter.up_sampler.bias)


@pytest.mark.parametrize("case", [case for case in AFTER if CASES[case][0] == "hypercomplex_adapters"])
def test_a_hypercomplex_matrix_is_a_sum_of_kronecker_products(case):
    torch.manual_seed(0)
    layer = HypercomplexLinear(config_for(case), 16, 8, SharedParts(), "down")
    rule, blocks = layer.rule.full(), layer.W.full()
    expected = sum(torch.kron(a, b) for a, b in zip(rule, blocks, strict=True))
    if "normalized" in case:
        expected = expected / expected.norm()
    assert torch.allclose(layer.full(), expected, atol=1e-6)
    x = torch.randn(3, 16)
    assert torch.allclose(layer(x), x @ expected + layer.bias, atol=1e-5)
    cut = HypercomplexLinear(config_for(case, hypercomplex_division=5), 16, 3, SharedParts(), "down")
    assert cut.full().shape == (16, 3)
    assert cut(x).shape == (3, 3)


def test_cross_layer_is_its_formula():
    """W[l, t] = G_1 (L_l T_t) G_2, computed entry by entry, and its transpose for the layer that maps back."""
    torch.manual_seed(0)
    config, shared = config_for("tt_cross_layer", tt_rank=3), SharedParts()
    places = [(nn.Linear(6, 8), Place("wi", 2, 3, ("wi", "wo"))), (nn.Linear(8, 6), Place("wo", 1, 3, ("wi", "wo")))]
    branches = [build(config, BESIDE_LINEAR, linear, place, shared) for linear, place in places]
    assert branches[0].cores is branches[1].cores
    for parameter in branches[0].parameters():
        nn.init.normal_(parameter)
    first, second = branches[0].cores.matrix.cores
    layer, kind = branches[0].cores.layer, branches[0].cores.kind
    for branch, (_, place), transposed in zip(branches, places, (False, True), strict=True):
        middle = layer[:, place.layer] @ kind[:, place.targets.index(place.target)]
        w = torch.einsum("inma,ab,bpqj->npmq", first, middle, second).reshape(6, 8)
        expected = w if transposed else w.T
        assert torch.allclose(branch.delta(torch.float32), expected, atol=1e-5)


def test_a_basis_is_a_sum_of_trains():
    torch.manual_seed(0)
    linear, shared = nn.Linear(12, 8), SharedParts()
    branches = [build(config_for("tt_basis"), BESIDE_LINEAR, linear, Place(), shared) for _ in range(2)]
    assert branches[0].basis is branches[1].basis
    assert [p.numel() for p in branches[0].parameters() if p.requires_grad] == [3]
    dense = []
    for k in range(3):
        with torch.no_grad():
            branches[0].coefficients.zero_()
            branches[0].coefficients[k] = 1
        dense.append(branches[0].delta(torch.float32))
    assert all(matrix.norm() > 0.1 for matrix in dense)
    with torch.no_grad():
        branches[0].coefficients.copy_(torch.tensor([0.5, -2.0, 3.0]))
    assert torch.allclose(branches[0].delta(torch.float32), 0.5 * dense[0] - 2 * dense[1] + 3 * dense[2], atol=1e-5)


def test_svd_starts_at_zero_and_near_the_weight():
    torch.manual_seed(0)
    linear = nn.Linear(16, 16)
    before = linear.weight.detach().clone()
    branch = branch_of(config_for("use_TTLoRA svd", tt_rank=16), linear)
    assert torch.allclose(branch.start.full().T, linear.weight, atol=1e-5)  # of full rank: exact
    assert branch.delta(torch.float64).abs().max() < 1e-15  # equal products may round differently
    assert torch.equal(linear.weight, before)


def test_shared_cores_are_one_and_others_are_not():
    config, shared = config_for("tensor_train_adapters", share_cores=[0]), SharedParts()
    a, b = (build(config, AFTER_SUBLAYER, 32, shared) for _ in range(2))
    for one, other in ((a.down_sampler, b.down_sampler), (a.up_sampler, b.up_sampler)):
        assert one.weight.cores[0] is other.weight.cores[0]
        assert one.weight.cores[1] is not other.weight.cores[1]
    assert a.down_sampler.weight.cores[0] is not a.up_sampler.weight.cores[0]


def test_cores_are_shared_by_the_tasks_too():
    config, switch = config_for("tensor_train_single", share_cores="first"), TaskSwitch(["a", "b"])
    adapters = AdapterController(config, 32, switch, SharedParts()).adapters
    first, second = (adapters[task].sampler.weight.cores for task in ("a", "b"))
    assert first[0] is second[0]
    assert first[1] is not second[1]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("last", [False, True])
def test_activated_cores_receive_gradients(activation, last):
    """Also where the activation is not zero at zero, or has no gradient there: such layers start at random."""
    torch.manual_seed(0)
    config = AdapterConfig(cores_nonlinearity=activation, activate_last_core=last)
    layer = TensorTrainLinear(config, 48, 24, init="zero", bias=False)
    x = torch.randn(5, 48)
    assert bool(layer(x).any()) == (last and activation in ("relu", "sigmoid"))
    layer(x).sum().backward()
    assert layer.weight.cores[-1].grad.any()


def test_freezing_leaves_a_core_that_starts_as_zero():
    for keys, words in (
        ({"freeze_cores": "first", "tt_shape": [[48], [24]]}, "all of 1 cores; leave at least one"),
        ({"freeze_cores": [9], "tt_d": "auto"}, "freeze_cores contains 9; "),
        ({"freeze_cores": [*range(-9, 0)], "tt_d": "auto"}, "freeze_cores contains -9; "),
    ):
        with pytest.raises(ConfigError, match=words):
            TensorTrainLinear(AdapterConfig(**keys), 48, 24, keys.get("tt_shape"), "zero")


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS.keys() - {"relu", "sigmoid"}))
def test_another_core_than_the_last_may_start_as_zero_before_an_activation(activation):
    torch.manual_seed(0)
    config = AdapterConfig(freeze_cores=[0, 2], cores_nonlinearity=activation)
    layer, x = TensorTrainLinear(config, 48, 24, init="zero", bias=False), torch.randn(5, 48)
    assert not layer(x).any()
    layer(x).sum().backward()
    assert layer.weight.cores[1].grad.any()


def test_shape_keys():
    def shape(**keys):
        layer = TensorTrainLinear(AdapterConfig(**keys), 768, 24)
        return layer.weight.raw_shape

    assert shape() == ((8, 8, 12), (2, 3, 4))
    assert shape(reverse_out_shape=True) == ((8, 8, 12), (4, 3, 2))
    assert shape(auto_shape_mode="descending", tt_d=2) == ((32, 24), (6, 4))
    assert shape(auto_shape_mode="skewed", tt_d=2) == ((96, 8), (8, 3))
    assert shape(factorize_smaller_dim=False) == ((8, 8, 12), (1, 1, 24))
    assert shape(factorize_smaller_dim=False, auto_shape_mode="descending") == ((12, 8, 8), (24, 1, 1))
    assert shape(auto_shape_mode="skewed") == ((96, 8), (8, 3))
    best = shape(tt_d="auto")
    assert t3nsor.parameter_count(best, 8) == min(t3nsor.parameter_count((768, 24), 8, d) for d in range(1, 7))
    with_shape = config_for("tensor_train_adapters", tt_shape=[[16, 48], [4, 6]])
    adapter = adapter_of(AdapterConfig(**{**with_shape.to_dict(), "task_reduction_factor": 32}), 768)
    assert adapter.down_sampler.weight.raw_shape == ((16, 48), (4, 6))
    assert adapter.up_sampler.weight.raw_shape == ((4, 6), (16, 48))
    swapped = branch_of(config_for("use_TTLoRA", tt_shape=[[4, 8], [6, 8]]), nn.Linear(48, 32))
    assert swapped.tt.weight.raw_shape == ((6, 8), (4, 8))


@pytest.mark.parametrize("case", AFTER)
def test_controller_runs_the_adapter_of_the_task(case):
    torch.manual_seed(0)
    switch = TaskSwitch(["a", "b.c"])
    config = config_for(case, add_layer_norm_before_adapter=True, add_layer_norm_after_adapter=True)
    controller = AdapterController(config, 32, switch, SharedParts())
    for parameter in controller.parameters():
        nn.init.normal_(parameter)
    y = torch.randn(3, 32)
    with switch.pinned("b.c"):
        got = controller(y)
        norm = nn.functional.layer_norm
        pre, post = controller.pre_layer_norm, controller.post_layer_norm
        inner = controller.adapters["b_c"](norm(y, (32,), pre.weight, pre.bias))
    assert torch.allclose(got, y + norm(inner, (32,), post.weight, post.bias), atol=1e-5)
    with switch.pinned("a"):
        assert not torch.allclose(controller(y), got)
    with pytest.raises(ValueError, match="name one of: a, b.c"):
        controller(y)
    with pytest.raises(ValueError, match="task is 'd'"), switch.pinned("d"):
        pass


def test_a_linear_layer_keeps_its_keys_and_its_weight():
    linear = nn.Linear(4, 6)
    adapted = AdaptedLinear(linear, AdapterConfig(), TaskSwitch(["task"]))
    assert list(adapted.state_dict()) == ["weight", "bias"]
    assert adapted.weight is linear.weight
    x = torch.randn(3, 4)
    assert torch.equal(adapted(x), linear(x))


@pytest.mark.parametrize(
    ("build_it", "words"),
    [
        (lambda: adapter_of(config_for("tensor_train_adapters", tt_shape=[[16, 16], [4, 6]]), 768), "multiply to 256"),
        (
            lambda: norm_of(config_for("use_KroneckerLayerNorm", KroneckerLayerNorm_n=5), 48),
            "KroneckerLayerNorm_n is 5",
        ),
        (lambda: branch_of(config_for("tt_cross_layer", tt_d=1), nn.Linear(4, 6)), "tt_d is 1"),
        (lambda: branch_of(config_for("tt_basis", tt_d=1), nn.Linear(4, 6)), "tt_d is 1"),
        (lambda: branch_of(config_for("use_TTLoRA", tt_shape=[[2, 2], [3, 3]]), nn.Linear(4, 6)), "tt_shape"),
        (lambda: branch_of(config_for("tt_basis", tt_shape=[[2, 2], [3, 3]]), nn.Linear(4, 6)), "tt_shape"),
        (lambda: branch_of(config_for("tt_cross_layer", tt_shape=[[2, 2], [3, 3]]), nn.Linear(4, 6)), "tt_shape"),
        (
            lambda: adapter_of(config_for("tensor_train_single", tt_d="auto", share_cores=[7]), 48),
            "share_cores contains 7",
        ),
    ],
)
def test_what_does_not_fit_the_model(build_it, words):
    with pytest.raises(ConfigError, match=words):
        build_it()
