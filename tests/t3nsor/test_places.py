"""Layers where torch puts them: traced, exported, quantised around, built without memory, parametrized, in its blocks."""

import pytest
import torch

from t3nsor import TREmbedding, TRLinear, TTBias, TTEmbedding, TTLayerNorm, TTLinear

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
