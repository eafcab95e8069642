"""Merging, for every method that supports it: the base weight keeps every bit, whatever happens in between."""

import copy
import os
import pickle

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from adapters import MergedWeight, merge_adapters, rounding_losses, unmerge_adapters
from tests.methods import MERGEABLE, adapted, config_for, linears, logits, moved, relative
from tests.methods import SOME_MERGEABLE as SOME
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MERGEABLE)
def test_merging_again_and_again_leaves_every_bit(shallow_config, case, dtype):
    model = adapted(shallow_config, config_for(case), dtype=dtype).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(100 if (case, dtype) == ("use_TTLoRA", torch.bfloat16) else 2):
        model.eval()
        assert model.merged
        model.train()
        assert not model.merged
    model.eval()
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MERGEABLE)
def test_the_merged_tensor_is_within_an_ulp_of_the_exact_sum(shallow_config, case, dtype):
    """The exact sum: what the parallel layer does to the identity matrix, in float64."""
    model = adapted(shallow_config, config_for(case), dtype=dtype)
    for layer in linears(model):
        exact = copy.deepcopy(layer).double()
        identity = torch.eye(layer.in_features, dtype=torch.float64)
        expected = exact.branch.layer_output(identity, exact.weight, None).T.detach()
        merged = layer.merged_weight()
        assert merged.dtype == dtype
        up, down = torch.nextafter(merged, torch.full_like(merged, torch.inf)), merged
        ulp = (up.double() - down.double()).abs()
        assert ((merged.double() - expected).abs() <= ulp).all()
        assert relative(merged, layer.weight) > 1e-3


class CountedOperations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("case", MERGEABLE)
def test_merged_inference_runs_the_operations_of_the_plain_backbone(shallow_config, batch, case, monkeypatch):
    model = adapted(shallow_config, config_for(case))
    torch.manual_seed(0)
    plain = T5ForConditionalGeneration(shallow_config).eval()
    merged = logits(model, batch)
    unmerge_adapters(model)
    parallel = logits(model, batch)
    assert relative(merged, parallel) < 1e-5
    assert relative(merged, logits(plain, batch)) > 1e-3
    merge_adapters(model)

    def refuse(*args, **kwargs):
        raise AssertionError("the branch was called")

    for module in model.modules():
        if isinstance(module, MergedWeight) and module.branch is not None:
            for name in ("layer_output", "update", "delta", "merged"):
                monkeypatch.setattr(module.branch, name, refuse)
    counts = []
    for each in (model, plain):
        with CountedOperations() as counted:
            logits(each, batch)
        counts.append(counted.names)
    if not case.startswith("intrinsic") and case != "both":  # where the norms are others
        assert counts[0] == counts[1]
    assert torch.equal(logits(model, batch), merged)


@pytest.mark.parametrize(("dtype", "tolerance"), list(zip(DTYPES, (1e-5, 3e-2, 4e-3), strict=True)))
@pytest.mark.parametrize("case", SOME)
def test_merged_and_parallel_logits_agree_in_every_precision(shallow_config, batch, case, dtype, tolerance):
    model = adapted(shallow_config, config_for(case), dtype=dtype)
    torch.manual_seed(0)
    plain = logits(T5ForConditionalGeneration(shallow_config).to(dtype).eval(), batch)
    merged = logits(model, batch)
    unmerge_adapters(model)
    parallel = logits(model, batch)
    assert relative(merged, parallel) < tolerance
    assert relative(merged, plain) > 3 * tolerance


def test_modes_nest(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    expected = logits(model, batch)
    model.eval().eval()
    assert torch.equal(logits(model, batch), expected)
    model.train().train().eval()
    assert torch.equal(logits(model, batch), expected)
    model.train()
    model.encoder.block[0].eval()
    states = [layer.is_merged for layer in linears(model)]
    assert states == [True, True] + [False] * 6
    assert not model.merged
    assert relative(logits(model, batch), expected) < 1e-5
    model.eval()
    model.decoder.train()
    assert [layer.is_merged for layer in linears(model)] == [True] * 4 + [False] * 4


def test_merging_by_hand_and_not_at_eval(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA", merge_at_eval=False))
    assert not model.merged
    parallel = logits(model, batch)
    assert merge_adapters(model) == {}
    assert model.merged
    assert relative(logits(model, batch), parallel) < 1e-5
    model.eval()
    assert model.merged
    unmerge_adapters(model)
    assert torch.equal(logits(model, batch), parallel)


def test_a_nonlinear_branch_says_that_it_cannot_be_merged(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA activated"))
    assert not model.merged
    parallel = merge_adapters(model)
    assert len(parallel) == 8
    assert set(parallel.values()) == {"it has an activation between its cores, so it is not a matrix"}


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("case", SOME)
def test_copies_have_merged_weights_of_their_own(tiny_config, batch, case, copier):
    model = adapted(tiny_config, config_for(case))
    expected = logits(model, batch)
    twin = copier(model)
    assert twin.merged
    assert torch.equal(logits(twin, batch), expected)
    moved(twin)
    assert not torch.allclose(logits(twin, batch), expected, atol=1e-4)
    assert torch.equal(logits(model, batch), expected)


def test_a_pickle_does_not_hold_the_merged_tensors(tiny_config):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    merged, parallel = len(pickle.dumps(model)), len(pickle.dumps(model.train()))
    assert abs(merged - parallel) < 2000


@pytest.mark.parametrize("case", SOME)
def test_conversions_while_merged(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case))
    exact = logits(copy.deepcopy(model).double(), batch)
    assert exact.dtype == torch.float64
    assert relative(logits(model, batch), exact) < 1e-5
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert all(layer.merged_weight().dtype == torch.bfloat16 for layer in linears(half))
    assert relative(logits(half, batch), exact) < 5e-2
    assert model.to("meta").merged
    assert all(layer.merged_weight().is_meta for layer in linears(model))


def test_a_wider_merge_dtype_loses_nothing(tiny_config, batch):
    narrow = adapted(tiny_config, config_for("use_TTLoRA"), dtype=torch.bfloat16)
    wide = adapted(tiny_config, config_for("use_TTLoRA", merge_dtype="float32"), dtype=torch.bfloat16)
    assert {layer.merged_weight().dtype for layer in linears(wide)} == {torch.float32}
    assert logits(wide, batch).dtype == torch.bfloat16
    lost = [max(rounding_losses(model).values()) for model in (narrow, wide)]
    assert 1e-3 < lost[0] < 0.5
    assert lost[1] < 1e-5
    with torch.autocast("cpu", torch.bfloat16):
        assert logits(adapted(tiny_config, config_for("use_TTLoRA")), batch).isfinite().all()


@pytest.mark.parametrize("case", ["use_LoRA", "use_TTLoRA", "ia3"])
def test_merged_inside_and_outside_of_inference_mode(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case, unfreeze_layer_norms=True)).train()
    with torch.inference_mode():
        model.eval()
        expected = model(**batch).logits.clone()
    assert torch.equal(logits(model, batch), expected)
    for layer in linears(model):
        layer.branch.requires_grad_(False)
    model(**batch).loss.backward()  # the merged tensors take part in a graph


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # torch 2.11
@pytest.mark.parametrize("case", ["use_TTLoRA", "ia3"])
def test_compiled(shallow_config, batch, case):
    """The encoder alone, which takes a third of the time; test_stale_merges.py compiles a whole model."""
    model = adapted(shallow_config, config_for(case))
    compiled = torch.compile(model.encoder, backend="aot_eager")

    def states(encoder):
        with torch.no_grad():
            return encoder(batch["input_ids"]).last_hidden_state

    expected = states(model.encoder)
    assert relative(states(compiled), expected) < 1e-5
    compiled.train()
    compiled(batch["input_ids"]).last_hidden_state.sum().backward()
    assert linears(model)[0].branch.parameters().__next__().grad.any()
    moved(model, seed=3)
    compiled.eval()
    after = states(compiled)
    assert relative(after, expected) > 1e-3
    assert relative(after, states(model.encoder)) < 1e-5


@pytest.mark.parametrize("case", ["use_TTLoRA", "tt_cross_layer", "intrinsic_model"])
def test_gradient_checkpointing(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case)).train()

    def gradients():
        model.zero_grad()
        model(**batch).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    expected = gradients()
    model.gradient_checkpointing_enable()
    for name, gradient in gradients().items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name
    model.eval()
    assert model.merged


@pytest.mark.parametrize("case", ["use_TTLoRA", "tt_cross_layer"])
def test_distributed_data_parallel(tiny_config, batch, case, tmp_path):
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = modify_model_after_init(T5ForConditionalGeneration(tiny_config), config_for(case))
        parallel = DistributedDataParallel(moved(model).train())
        parallel(**batch).loss.backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
        expected = logits(model, batch)
        parallel.eval()
        assert model.merged
        assert relative(logits(parallel, batch), expected) < 1e-5
        parallel.train()
        assert not model.merged
    finally:
        torch.distributed.destroy_process_group()
