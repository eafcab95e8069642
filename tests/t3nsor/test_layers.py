"""Layers compared with the dense layers they represent."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn import functional

from t3nsor import (
    Plan,
    ShapeError,
    TensorTrain,
    TREmbedding,
    TRLinear,
    TTBias,
    TTEmbedding,
    TTLayerNorm,
    TTLinear,
    from_matrix,
    linear_shape,
    parameter_count,
    random_matrix,
)

LINEAR = [TTLinear, TRLinear]


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("shape", [None, ((2, 3, 4), (3, 3, 2)), ((24,), (18,)), ((4, 6), (9, 2))])
def test_linear_layer_equals_its_matrix_and_bias(kind, shape):
    layer = kind(24, 18, rank=3, shape=shape).double()
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 5, 24, dtype=torch.float64)
    assert torch.allclose(layer(x), functional.linear(x, layer.full().T, layer.bias))
    d = len(shape[0]) if shape else 3
    assert list(layer.state_dict()) == ["bias", *(f"weight.cores.{k}" for k in range(d))]
    assert sum(p.numel() for p in layer.parameters()) == layer.weight.numel() + 18


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("frozen", [None, "first", "last", [0, 1]])
def test_zero_start_is_zero_and_is_left(kind, frozen):
    layer = kind(24, 18, rank=3, init="zero", freeze_cores=frozen)
    x = torch.randn(4, 24)
    assert not layer(x).any()
    before = copy.deepcopy(layer.state_dict())
    optimizer = torch.optim.SGD([p for p in layer.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (layer(x) - 1).square().sum().backward()
        optimizer.step()
    assert layer.full().any()
    changed = {k for k in range(3) if not torch.equal(before[f"weight.cores.{k}"], layer.weight.cores[k])}
    assert changed == set(range(3)) - set(layer.weight.frozen_cores)


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize(("init", "variance"), [("glorot", 2 / (144 + 100)), ("kaiming", 2 / 144)])
def test_initial_variance(kind, init, variance):
    torch.manual_seed(0)
    draws = torch.stack([kind(144, 100, rank=4, init=init).full().detach() for _ in range(60)])
    assert draws.var().item() == pytest.approx(variance, rel=0.15)


def test_a_layer_starts_from_a_decomposed_matrix():
    matrix = torch.randn(12, 10)
    layer = TTLinear(12, 10, init=from_matrix(matrix, ((3, 4), (5, 2))))
    assert torch.allclose(layer.full(), matrix, atol=1e-5)
    assert all(core.requires_grad for core in layer.weight.cores)


@pytest.mark.parametrize("kind", LINEAR)
def test_layers_are_ordinary_modules(kind):
    layer = kind(24, 18, rank=2, freeze_cores="first")
    x = torch.randn(3, 24)
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    other = kind(24, 18, rank=2, freeze_cores="first")
    other.load_state_dict(torch.load(file, weights_only=True))
    for same in (other, copy.deepcopy(layer)):
        assert torch.equal(same(x), layer(x))
    assert [p.requires_grad for p in layer.weight.cores] == [False, True, True]
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def by_hand(x, cores, activation):
    """An activated chain by einsum, core by core."""
    (rows,), (n1, n2, n3) = x.shape[:-1], [core.shape[1] for core in cores]
    state = torch.einsum("bijk,aimr->bamrjk", x.reshape(rows, n1, n2, n3), cores[0])
    state = torch.einsum("bamrjk,rjns->bamnsk", activation(state), cores[1])
    return torch.einsum("bamnsk,skoa->bmno", activation(state), cores[2]).reshape(rows, -1)


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["saved", "recomputed"])
def test_activation_between_the_cores(kind, checkpointing):
    layer = kind(24, 30, rank=3, cores_nonlinearity=torch.tanh, use_checkpointing=checkpointing).double()
    x = torch.randn(7, 24, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), by_hand(x, list(layer.weight.cores), torch.tanh)
    assert torch.allclose(y, expected + layer.bias)
    tensors = [x, *layer.weight.cores]
    got, wanted = (torch.autograd.grad(out.square().sum(), tensors) for out in (y, expected))
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))
    with pytest.raises(ShapeError, match="has no matrix"):
        layer.full()
    assert "tanh between the cores" in repr(layer)


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("checkpointing", [False, True], ids=["saved", "recomputed"])
def test_activation_behind_the_last_core(kind, checkpointing):
    layer = kind(24, 30, rank=3, cores_nonlinearity=torch.tanh, activate_last=True, use_checkpointing=checkpointing)
    layer = layer.double()
    x = torch.randn(7, 24, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), torch.tanh(by_hand(x, list(layer.weight.cores), torch.tanh))
    assert torch.allclose(y, expected + layer.bias)
    tensors = [x, *layer.weight.cores]
    got, wanted = (torch.autograd.grad(out.square().sum(), tensors) for out in (y, expected))
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))
    assert "tanh behind every core" in repr(layer)


@pytest.mark.parametrize(
    ("freeze", "zero"), [(None, 2), ("first", 2), ("last", 1), ([0, 2], 1), ([1, 2], 0), ([-1, 1], 0), ([0, 1], 2)]
)
def test_the_zero_core_is_the_last_of_those_that_are_trained(freeze, zero):
    layer = TTLinear(24, 30, init="zero", freeze_cores=freeze, bias=False)
    assert [bool(core.any()) for core in layer.weight.cores] == [k != zero for k in range(3)]
    layer(torch.randn(5, 24)).sum().backward()
    assert layer.weight.cores[zero].grad.any()


def test_activated_layer_accepts_zero_rows_and_follows_autocast():
    layer = TTLinear(24, 30, rank=2, cores_nonlinearity=torch.relu)
    assert layer(torch.zeros(0, 24)).shape == (0, 30)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.zeros(2, 24)).dtype == TTLinear(24, 30)(torch.zeros(2, 24)).dtype == torch.bfloat16


def test_a_layer_takes_copies_of_the_train_it_starts_from():
    start = random_matrix(((3, 4), (5, 2)), 2, trainable=True)
    layer = TTLinear(12, 10, init=start, freeze_cores="first")
    assert all(core.requires_grad for core in start.cores)
    assert torch.equal(layer.full(), start.full())


def test_recomputing_saves_no_state_between_the_cores():
    def saved_numbers(checkpointing):
        layer = TTLinear(64, 64, rank=4, cores_nonlinearity=torch.tanh, use_checkpointing=checkpointing)
        x, saved = torch.randn(100, 64), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
            layer(x)
        return sum(saved)

    assert saved_numbers(True) <= 100 * 64 + 4 * 4 * 4 * 16 * 3 < saved_numbers(False) / 4


@pytest.mark.parametrize("kind", LINEAR)
def test_the_identity_between_the_cores_is_the_matrix(kind):
    layer = kind(24, 30, rank=3, cores_nonlinearity=lambda state: state).double()
    x = torch.randn(5, 24, dtype=torch.float64)
    assert torch.allclose(layer(x), x @ layer.weight.full())


def t5_norm(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def test_layer_norm_starts_as_ones_or_near_a_given_vector():
    x = torch.randn(3, 4, 768)
    assert torch.allclose(TTLayerNorm(768)(x), t5_norm(x, torch.ones(768)), atol=1e-6)
    vector = torch.rand(768) + 0.5
    exact = TTLayerNorm(768, rank=None, preinit=vector)
    assert torch.allclose(exact(x), t5_norm(x, vector), atol=1e-5)
    assert exact.preinit_error < 1e-5
    near = TTLayerNorm(768, rank=2, preinit=vector)
    assert near.preinit_error == pytest.approx(((near.full() - vector).norm() / vector.norm()).item(), rel=1e-3)
    assert 0.01 < near.preinit_error < 0.5
    assert near(x.bfloat16()).dtype == torch.bfloat16


def test_layer_norm_lies_between_scale_norm_and_layer_norm_only_at_small_rank():
    counts = {rank: sum(p.numel() for p in TTLayerNorm(768, rank=rank).parameters()) for rank in (1, 2, 8, (8, 12))}
    assert counts == {1: 28, 2: 72, 8: 672, (8, 12): 976}


@pytest.mark.parametrize("kind", [TTLayerNorm, TTBias])
def test_a_constant_start_uses_its_rank_after_training(kind):
    torch.manual_seed(0)
    layer, target, x = kind(768, rank=4), torch.randn(768), torch.randn(64, 768)
    wanted = t5_norm(x, target) if kind is TTLayerNorm else x + target
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        (layer(x) - wanted).square().mean().backward()
        optimizer.step()
    ranks = [torch.linalg.matrix_rank(layer.full().reshape(shape), rtol=1e-3) for shape in ((8, 96), (64, 12))]
    assert [int(rank) for rank in ranks] == [4, 4]


def test_bias_starts_as_zero():
    x = torch.randn(5, 768)
    assert torch.equal(TTBias(768)(x), x)


@pytest.mark.parametrize("kind", [TTEmbedding, TREmbedding])
def test_embedding_takes_rows_of_its_table(kind):
    layer = kind(1009, 12, rank=3).double()
    index = torch.tensor([[0, 1008, 7], [7, 500, 1]])
    rows, table = layer(index), layer.full()
    assert table.shape == (1009, 12)
    assert torch.allclose(rows, table[index])
    direction = torch.randn_like(rows)
    cores = list(layer.weight.cores)
    got, wanted = (torch.autograd.grad((out * direction).sum(), cores) for out in (rows, table[index]))
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))
    with pytest.raises(ShapeError, match="index is 1009; it must be less than 1009"):
        layer(torch.tensor([1009]))


def test_embedding_never_builds_the_table():
    """The dense table has 10^12 entries."""
    assert TTEmbedding(10**9, 1000, rank=2, d=6)(torch.tensor([5, 999_999_999])).shape == (2, 1000)


def test_automatic_shapes():
    fewest = linear_shape(768, 3072, d="auto", rank=4)
    counts = [parameter_count((768, 3072), 4, d) for d in range(1, 7)]
    assert parameter_count(fewest, 4) == min(counts)
    assert linear_shape(257, 263, d="auto", rank=8) == ((257,), (263,))
    assert linear_shape(768, 3072, d="fastest", rank=8) == linear_shape(768, 3072, d=6)
    assert linear_shape(768, 3072) == linear_shape(768, 3072, d=3)
    layer = TTLinear(768, 3072, rank=2, auto_shape_mode="skewed", bias=False)
    assert layer.weight.raw_shape == ((96, 8), (8, 384))
    assert layer.weight.numel() == 2 * (768 + 3072)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TTLinear(6, 4, init="ones"), "init is 'ones'; allowed: glorot, kaiming, zero or a tensor train"),
        (lambda: TTLinear(6, 4, strategy="fast"), "strategy is 'fast'; allowed: auto, measured, left_to_right"),
        (lambda: TTLinear(6, 4, strategy=Plan("chain", (1, 1))), "is a plan for 2 cores; the chain has 3"),
        (lambda: TTLinear(6, 4, freeze_cores=[3]), "freeze_cores [3] holds 3; 3 cores have the indices -3 to 2"),
        (lambda: TTLinear(6, 4, init="zero", freeze_cores=[0, 1, 2]), "freezes all 3 cores"),
        (
            lambda: TTLinear(6, 4, init="zero", freeze_cores="last", cores_nonlinearity=torch.relu),
            "only if the activation is 0 at 0 and has a gradient there",
        ),
        (lambda: TTLinear(6, 4, shape=((2, 3), (2, 3))), "the out factors multiply to 6, the output dimension is 4"),
        (lambda: TTLinear(6, 4, rank=0), "rank is 0"),
        (lambda: TTLinear(0, 4), "n is 0"),
        (lambda: TTLinear(6, 4, d="many"), "d is 'many'; it must be a number of cores, 'auto' or 'fastest'"),
        (lambda: TTLinear(6, 4, auto_shape_mode="up"), "auto_shape_mode is 'up'; allowed: ascending"),
        (lambda: TTLinear(6, 4, d=3, auto_shape_mode="skewed"), "d is 3; a skewed shape has 2 cores"),
        (lambda: TTLinear(6, 4, init=random_matrix(((2, 2), (2, 2)))), "multiply to 4, the input dimension is 6"),
        (lambda: TRLinear(4, 4, init=random_matrix(((2, 2), (2, 2)))), "must be the matrix of a TensorRing"),
        (lambda: TTLinear(6, 4)(torch.ones(3, 5)), "x has shape (3, 5); its last dimension must be 6"),
        (lambda: TTLinear(6, 4, cores_nonlinearity=torch.relu)(torch.ones(5)), "its last dimension must be 6"),
        (lambda: TTLinear(6, 4)(torch.ones(3, 6, dtype=torch.float64)), "float64 on cpu, a core torch.float32"),
        (lambda: TTLinear(6, 4, cores_nonlinearity=torch.relu)(torch.ones(3, 6).double()), "is torch.float64 on cpu"),
        (
            lambda: TTLinear(6, 4, cores_nonlinearity=torch.relu)(torch.ones(3, 6).long()),
            "is torch.int64; it must be floating-point",
        ),
        (
            lambda: TTBias(6)(torch.ones(3, 1)),
            "TTBias: x of shape (3, 1) is torch.float32; its last dimension must be 6",
        ),
        (lambda: TTLayerNorm(6)(torch.ones(3, 6).long()), "x of shape (3, 6) is torch.int64"),
        (lambda: TTLayerNorm(6, shape=(2, 2)), "shape [2, 2] multiplies to 4; the vector has 6 entries"),
        (lambda: TTLayerNorm(6, preinit=torch.ones(5)), "preinit has shape (5,); it must be (6,)"),
        (lambda: TTLayerNorm(6, preinit=torch.full((6,), torch.nan)), "NaN"),
        (lambda: TTEmbedding(6, 4, shape=((2, 2), (2, 2))), "has 4 rows; the table needs 6"),
        (lambda: TTEmbedding(6, 4)(torch.tensor([-1])), "indices from -1 to -1"),
        (lambda: TensorTrain([torch.ones(1, 2, 2, 2)]), "the first and the last rank must be 1"),
    ],
)
def test_errors_state_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
