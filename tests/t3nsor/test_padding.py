"""Layers of sizes that split badly: the warning that names a better shape, and padding to one."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional

from t3nsor import (
    ShapeError,
    ShapeWarning,
    TensorTrain,
    TREmbedding,
    TRLinear,
    TTBias,
    TTEmbedding,
    TTLayerNorm,
    TTLinear,
    auto_shape,
    explain,
    from_matrix,
    linear_shape,
    parameter_count,
    skewed_shape,
    to_tt_matrix,
)

LINEAR = [TTLinear, TRLinear]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: TTLinear(769, 3079, d=2),
            "TTLinear 769 -> 3079 has 18,942,016 parameters, a dense one 2,367,751; d=2, ",
        ),
        (lambda: TTLinear(769, 3079, d=2), "d=2, pad=True ([22, 35] -> [55, 56]) has 25,360"),
        (lambda: TRLinear(13, 17, rank=2), "TRLinear 13 -> 17 has 892 parameters, a dense one 221; d=3, pad=True"),
        (lambda: TTLinear(24, 30), "a dense one 720; d=2 ([4, 6] -> [5, 6]) has 448"),
        (lambda: TTLinear(64, 64, shape=((1, 64), (1, 64))), "a dense one 4,096; d="),
        (lambda: TTLinear(6, 4, init=from_matrix(torch.randn(6, 4), ((2, 3), (2, 2)))), "rank="),
        (lambda: TTLinear(3, 2, rank=1), "a dense one 6; no rank and no d has fewer: use a dense one"),
        (lambda: TTLinear(6, 4, rank=10**6, device="meta"), "a dense one 24; rank=1 has 11"),
        (lambda: TTEmbedding(1000, 7, rank=40), "TTEmbedding 1000 -> 7 has"),
        (lambda: TTBias(769), "TTBias 769 has 3,096 parameters, a dense one 769; d=3, pad=True ([7, 10, 11]) has 232"),
        (lambda: TTLayerNorm(769), "TTLayerNorm 769 has"),
        (lambda: TTLayerNorm(768, rank=None, preinit=torch.randn(768)), "a dense one 768"),
    ],
)
def test_a_layer_larger_than_the_dense_one_says_what_would_be_smaller(build, words):
    with pytest.warns(ShapeWarning) as caught:
        build()
    (warning,) = caught
    assert words in str(warning.message)
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "build",
    [
        lambda: TTLinear(768, 3072),
        lambda: TTLinear(768, 3072, rank=64),
        lambda: TTLinear(769, 3079, d="auto"),
        lambda: TTLinear(769, 3079, d=2, pad=True),
        lambda: TRLinear(769, 3079, pad=True),
        lambda: TTEmbedding(32_101, 769, pad=True),
        lambda: TTBias(769, pad=True),
        lambda: TTLayerNorm(768),
    ],
)
def test_other_layers_warn_of_nothing(build):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build()


@pytest.mark.parametrize("kind", LINEAR)
@pytest.mark.parametrize("options", [{}, {"d": 2}, {"d": "fastest"}, {"auto_shape_mode": "skewed"}, {"bias": False}])
def test_a_padded_layer_is_its_matrix(kind, options):
    torch.manual_seed(0)
    layer = kind(47, 53, rank=2, pad=True, **options).double()
    if layer.bias is not None:
        nn.init.normal_(layer.bias)
    rows, columns = layer.weight.shape
    assert rows >= 47
    assert columns >= 53
    x = torch.randn(2, 5, 47, dtype=torch.float64, requires_grad=True)
    y, expected = layer(x), functional.linear(x, layer.full().T, layer.bias)
    assert layer.full().shape == (47, 53)
    assert torch.allclose(y, expected)
    assert y.is_contiguous()
    tensors = [x, *layer.parameters()]
    weight = torch.randn(y.shape, dtype=torch.float64)
    got, wanted = (torch.autograd.grad((out * weight).sum(), tensors) for out in (y, expected))
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))
    bonds = list(layer.weight.ranks[:-1] if kind is TRLinear else layer.weight.ranks[1:-1])
    expected_count = parameter_count(layer.weight.raw_shape, bonds, ring=kind.ring)
    assert sum(p.numel() for p in layer.parameters()) == expected_count + (53 if layer.bias is not None else 0)
    assert f"47 -> 53, padded to {rows} -> {columns}, bias" in repr(layer)


def test_a_padded_layer_is_saved_explained_and_compiled(capsys):
    layer, other = (TTLinear(47, 53, rank=2, pad=True) for _ in range(2))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 47)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert layer.bias.shape == (53,)
    explain(layer, rows=3)
    assert "-> " in capsys.readouterr().out
    compiled = torch.compile(layer, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), layer(x), atol=1e-6)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer(torch.zeros(0, 47)).shape == (0, 53)


def test_padding_with_an_activation_and_from_a_given_train():
    layer = TTLinear(47, 53, rank=2, pad=True, cores_nonlinearity=torch.tanh)
    wide = TTLinear(*layer.weight.shape, rank=2, shape=layer.weight.raw_shape, cores_nonlinearity=torch.tanh)
    wide.weight.load_state_dict(layer.weight.state_dict())
    x = torch.randn(3, 47)
    padded = functional.pad(x, (0, wide.in_features - 47))
    assert torch.allclose(layer(x), wide(padded)[:, :53], atol=1e-6)
    matrix = torch.randn(7, 11)
    shape = (2, 4), (3, 4)
    start = to_tt_matrix(functional.pad(matrix, (0, 1, 0, 1)), shape)
    assert torch.allclose(TTLinear(7, 11, init=start, pad=True).full(), matrix, atol=1e-5)
    assert TTLinear(7, 11, shape=shape, rank=2, pad=True)(torch.randn(7)).shape == (11,)
    assert not TTLinear(7, 11, rank=1, pad=True, init="zero").full().any()


@pytest.mark.parametrize("kind", [TTEmbedding, TREmbedding])
def test_a_padded_embedding_is_its_table(kind):
    layer = kind(101, 47, rank=2, pad=True)
    index = torch.tensor([[0, 100], [7, 50]])
    assert layer.full().shape == (101, 47)
    assert torch.allclose(layer(index), layer.full()[index], atol=1e-6)
    assert math.prod(layer.weight.raw_shape[1]) > 47


def test_padded_vectors():
    bias, norm = TTBias(47, rank=2, pad=True), TTLayerNorm(47, rank=2, pad=True)
    x = torch.randn(3, 47)
    assert torch.equal(bias(x), x)
    assert torch.equal(norm.full(), torch.ones(47))
    assert isinstance(norm.weight, TensorTrain)
    assert math.prod(norm.weight.shape) > 47
    given = torch.rand(47) + 1
    exact = TTLayerNorm(47, rank=8, preinit=given, pad=True)
    assert torch.allclose(exact.full(), given, atol=1e-5)
    assert exact.preinit_error < 1e-5
    assert TTLayerNorm(7, rank=2, shape=(2, 4), pad=True).full().shape == (7,)


def test_padded_shapes():
    assert auto_shape(768, pad=True) == auto_shape(768)
    assert auto_shape(769, 2, pad=True) == (22, 35)
    assert auto_shape(769, 2, mode="descending", pad=True) == (35, 22)
    assert linear_shape(769, 3079, d=2, pad=True) == ((22, 35), (55, 56))
    assert skewed_shape(769, 3079, pad=True) == ((97, 8), (8, 385))
    assert skewed_shape(768, 3072, pad=True) == skewed_shape(768, 3072)
    assert skewed_shape(10, 21, q=5, pad=True) == ((2, 5), (5, 5))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: TTLinear(7, 11, rank=1, shape=((2, 3), (3, 4)), pad=True),
            "multiply to 6, the input dimension is 7; with pad",
        ),
        (lambda: TTLinear(7, 11, rank=1, shape=((2, 4), (3, 4))), "multiply to 8, the input dimension is 7"),
        (lambda: TTLinear(47, 53, pad=True)(torch.ones(2, 48)), "x has shape (2, 48); its last dimension must be 47"),
        (lambda: TTBias(7, shape=(2, 3), pad=True), "multiplies to 6; the vector has 7 entries"),
        (lambda: auto_shape(0, pad=True), "n is 0"),
        (lambda: skewed_shape(8, 8, q=0, pad=True), "q is 0"),
    ],
)
def test_errors_state_the_sizes(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
