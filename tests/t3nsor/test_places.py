"""Layers where they are put: traced, exported, offloaded, built without memory, parametrized, in blocks of torch."""

import copy
import pickle

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from torch import nn
from torch.func import functional_call

from t3nsor import ShapeError, TREmbedding, TRLinear, TTBias, TTEmbedding, TTLayerNorm, TTLinear

LAYERS = {
    "chain": lambda: TTLinear(24, 18, rank=3, strategy="right_to_left"),
    "full": lambda: TTLinear(24, 18, rank=3, strategy="full"),
    "ring": lambda: TRLinear(24, 18, rank=2, save="least"),
    "padded": lambda: TTLinear(23, 17, rank=2, pad=True),
    "activated": lambda: TTLinear(24, 18, rank=3, cores_nonlinearity=torch.relu),
    "norm": lambda: TTLayerNorm(24, rank=2),
    "bias": lambda: TTBias(24, rank=2),
    "embedding": lambda: TTEmbedding(100, 24, rank=3),
    "ring embedding": lambda: TREmbedding(100, 24, rank=3),
}
ROWS = (1, 2, 40, 700)


def built(name):
    layer = LAYERS[name]().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=0.5)
    return layer


def rows_for(layer, rows):
    if isinstance(layer, TTEmbedding):
        return torch.arange(rows) % layer.num_embeddings
    return torch.randn(rows, layer.in_features if isinstance(layer, TTLinear) else layer.size)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_trace_is_for_any_number_of_rows(name):
    layer = built(name)
    for first in (3, 600):
        traced = torch.jit.trace(layer, rows_for(layer, first))
        for rows in ROWS:
            x = rows_for(layer, rows)
            torch.testing.assert_close(traced(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_an_exported_program_is_of_torchs_own_operations_for_any_number_of_rows(name):
    layer = built(name)
    program = torch.export.export(layer, (rows_for(layer, 5),), dynamic_shapes=({0: torch.export.Dim("rows")},))
    assert not [node for node in program.graph.nodes if "t3nsor" in str(node.target)]
    for rows in ROWS[1:]:
        x = rows_for(layer, rows)
        torch.testing.assert_close(program.module()(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_is_for_any_number_of_rows(name, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    layer, file = built(name), str(tmp_path / "layer.onnx")
    dynamic = ({0: torch.export.Dim("rows")},)
    torch.onnx.export(layer, (rows_for(layer, 5),), file, dynamo=True, dynamic_shapes=dynamic, verbose=False)
    session = runtime.InferenceSession(file)
    for rows in ROWS:
        x = rows_for(layer, rows)
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(y), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("nested", [False, True])
def test_an_encoder_layer_of_torch_calls_linear_layers_that_were_put_into_it(nested):
    layer = nn.TransformerEncoderLayer(24, 2, 32, dropout=0.0, batch_first=True)
    layer.linear1, layer.linear2 = TTLinear(24, 32, rank=3), TTLinear(32, 24, rank=3)
    model = (nn.TransformerEncoder(layer, 1, enable_nested_tensor=False) if nested else layer).eval()
    x = torch.randn(2, 5, 24)
    with torch.no_grad():
        found = model(x)
    torch.testing.assert_close(found, model(x))


def test_an_attention_of_torch_that_reads_a_weight_says_so():
    layer = nn.TransformerEncoderLayer(24, 2, 32, batch_first=True).eval()
    layer.self_attn.out_proj = TTLinear(24, 24, rank=2)
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(TypeError, match="multi_head_.* keep a dense layer there"):
            layer(torch.randn(2, 5, 24))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("on_disk", [False, True])
def test_offloaded_cores_are_loaded_when_they_are_needed(name, on_disk, tmp_path):
    model = nn.Sequential(built(name))
    x = rows_for(model[0], 5)
    with torch.no_grad():
        expected = model(x)
        model = disk_offload(model, tmp_path, "cpu") if on_disk else cpu_offload(model, "cpu")
        assert model[0].weight.device.type == "meta"
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("name", [*LAYERS, "zero"])
def test_a_layer_built_without_memory_is_drawn_later(name):
    build = LAYERS.get(name, lambda: TTLinear(24, 18, rank=3, init="zero", freeze_cores="last"))
    torch.manual_seed(1)
    expected = build()
    with torch.device("meta"):
        layer = build()
    layer.to_empty(device="cpu")
    for tensor in layer.parameters():
        nn.init.constant_(tensor, torch.nan)
    torch.manual_seed(1)
    layer.reset_parameters()
    assert [p.requires_grad for p in layer.parameters()] == [p.requires_grad for p in expected.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(layer.parameters(), expected.parameters(), strict=True))
    layer(rows_for(layer, 3)).sum().backward()


def test_a_layer_that_started_from_values_is_not_drawn_again():
    for layer in (TTLinear(24, 18, init=TTLinear(24, 18).weight), TTLayerNorm(24, preinit=torch.ones(24))):
        with pytest.raises(ShapeError, match="it started from .* build it again"):
            layer.reset_parameters()


@pytest.mark.parametrize("name", ["chain", "ring", "padded", "norm", "embedding"])
@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_parametrized_cores(name, kind):
    layer = built(name).train()
    getattr(nn.utils.parametrizations, kind)(layer.weight.cores, "1")
    x = rows_for(layer, 5)
    layer(x).square().sum().backward()
    assert all(parameter.grad.any() for parameter in layer.parameters())
    layer.eval()
    before = layer(x)
    nn.utils.parametrize.remove_parametrizations(layer.weight.cores, "1")
    torch.testing.assert_close(layer(x), before)


@pytest.mark.parametrize("name", LAYERS)
def test_cores_are_replaced_for_a_call_and_mapped_over(name):
    layer = built(name)
    x, values = rows_for(layer, 5), dict(layer.named_parameters())
    other = copy.deepcopy(layer)
    for parameter in other.parameters():
        parameter.data *= 2
    doubled = {key: 2 * value for key, value in values.items()}
    torch.testing.assert_close(functional_call(layer, doubled, (x,)), other(x))
    both = {key: torch.stack([value, 2 * value]) for key, value in values.items()}
    each = torch.func.vmap(lambda values: functional_call(layer, values, (x,)))(both)
    torch.testing.assert_close(each, torch.stack([layer(x), other(x)]), rtol=1e-4, atol=1e-5)
    for again in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert torch.equal(again(x), layer(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_dynamic_quantisation_leaves_trains_as_they_are():
    model = nn.Sequential(nn.Linear(24, 24), built("chain"))
    quantised = torch.ao.quantization.quantize_dynamic(model)
    assert type(quantised[0]) is not nn.Linear
    assert type(quantised[1]) is TTLinear
    x = torch.randn(3, 24)
    torch.testing.assert_close(quantised(x), model[1](quantised[0](x)))
