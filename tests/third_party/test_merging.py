"""Merging, for every method that can: the weight stays what it was to the bit, whatever happens meanwhile."""

import copy
import os
import pickle
import threading

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from adapters import AdaptedLinear, MergedWeight, merge_adapters, remerge, rounding_losses, unmerge_adapters
from tests.methods import MERGEABLE, adapted, config_for, moved, relative
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SOME = ["use_LoRA", "use_TTLoRA", "use_TTLoRA svd", "tt_cross_layer", "tt_basis", "ia3", "intrinsic_said"]


def linears(model) -> list[AdaptedLinear]:
    return [m for m in model.modules() if isinstance(m, AdaptedLinear) and m.branch is not None]


def logits(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MERGEABLE)
def test_a_hundred_cycles_leave_every_bit(tiny_config, case, dtype):
    model = adapted(tiny_config, config_for(case), dtype=dtype).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(100):
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
def test_the_merged_tensor_is_within_an_ulp_of_the_exact_sum(tiny_config, case, dtype):
    """The exact sum: what the parallel layer does to the identity matrix, in float64."""
    model = adapted(tiny_config, config_for(case), dtype=dtype)
    for layer in linears(model):
        exact = copy.deepcopy(layer).double()
        identity = torch.eye(layer.in_features, dtype=torch.float64)
        expected = exact.branch.beside(identity, exact.weight, None).T.detach()
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
def test_merged_inference_is_the_plain_backbones(tiny_config, batch, case, monkeypatch):
    model = adapted(tiny_config, config_for(case))
    torch.manual_seed(0)
    plain = T5ForConditionalGeneration(tiny_config).eval()
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
            for name in ("beside", "update", "delta", "merged"):
                monkeypatch.setattr(module.branch, name, refuse)
    counts = []
    for each in (model, plain):
        with CountedOperations() as counted:
            logits(each, batch)
        counts.append(counted.names)
    if not case.startswith("intrinsic") and case != "both":  # where the norms are others
        assert counts[0] == counts[1]
    assert torch.equal(logits(model, batch), merged)


@pytest.mark.parametrize(("dtype", "tolerance"), zip(DTYPES, (1e-5, 3e-2, 4e-3), strict=True))
@pytest.mark.parametrize("case", SOME)
def test_merged_and_parallel_logits_agree_in_every_precision(tiny_config, batch, case, dtype, tolerance):
    model = adapted(tiny_config, config_for(case), dtype=dtype)
    torch.manual_seed(0)
    plain = logits(T5ForConditionalGeneration(tiny_config).to(dtype).eval(), batch)
    merged = logits(model, batch)
    unmerge_adapters(model)
    parallel = logits(model, batch)
    assert relative(merged, parallel) < tolerance
    assert relative(merged, plain) > 3 * tolerance


@pytest.mark.parametrize("case", SOME)
def test_with_gradients_the_branch_runs_and_gets_them(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case))
    assert model.merged

    def gradients():
        model.zero_grad()
        model(**batch).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    merged = gradients()
    model.train()
    for name, gradient in gradients().items():
        assert torch.allclose(merged[name], gradient, atol=1e-6), name
        assert gradient.any(), name


def test_a_frozen_branch_is_merged_even_with_gradients(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA", unfreeze_layer_norms=True))
    for layer in linears(model):
        layer.branch.requires_grad_(False)
        layer.branch.beside = None
    loss = model(**batch).loss
    loss.backward()
    assert model.encoder.final_layer_norm.weight.grad.any()


def changed_by(model, batch, change) -> tuple[torch.Tensor, torch.Tensor]:
    """(logits after a change made while merged, those of the parallel layers)."""
    model.eval()
    before = logits(model, batch)
    change()
    merged = logits(model, batch)
    assert not torch.allclose(merged, before, atol=1e-4)
    unmerge_adapters(model)
    parallel = logits(model, batch)
    merge_adapters(model)
    return merged, parallel


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "Adafactor", "fused AdamW"])
@pytest.mark.parametrize("case", SOME)
def test_a_step_while_merged_is_seen(tiny_config, batch, case, optimizer):
    model = adapted(tiny_config, config_for(case))
    trained = [p for p in model.parameters() if p.requires_grad]
    options = {"fused": True} if "fused" in optimizer else {}
    optimizer = getattr(torch.optim, optimizer.removeprefix("fused "))(trained, lr=0.1, **options)
    model(**batch).loss.backward()
    merged, parallel = changed_by(model, batch, optimizer.step)
    assert relative(merged, parallel) < 1e-5


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("case", SOME)
def test_a_state_dict_loaded_while_merged_is_seen(tiny_config, batch, case, assign):
    model = adapted(tiny_config, config_for(case))
    other = moved(copy.deepcopy(model), seed=2)
    merged, parallel = changed_by(model, batch, lambda: model.load_state_dict(other.state_dict(), assign=assign))
    assert relative(merged, parallel) < 1e-5
    assert torch.equal(merged, logits(other.eval(), batch))


def test_a_write_through_data_needs_remerge(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_LoRA"))
    before = logits(model, batch)
    model.encoder.block[0].layer[1].DenseReluDense.wi.branch.B.data.mul_(100)
    assert torch.equal(logits(model, batch), before)
    remerge(model)
    merged = logits(model, batch)
    assert not torch.allclose(merged, before, atol=1e-4)
    model.train()
    assert relative(logits(model, batch), merged) < 1e-5


def test_other_tensors_in_its_place_are_seen(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer = model.encoder.block[0].layer[1].DenseReluDense.wi
    other = moved(copy.deepcopy(model), seed=2)
    expected = logits(other.eval(), batch)
    parameters = dict(other.named_parameters())
    with torch.no_grad():
        assert torch.equal(torch.func.functional_call(model, parameters, kwargs=batch).logits, expected)
    before = layer.merged_weight().clone()
    state = other.encoder.block[0].layer[1].DenseReluDense.wi.branch.state_dict()
    layer.branch.load_state_dict(state, assign=True)
    assert not torch.equal(layer.merged_weight(), before)


def test_an_adapter_loaded_while_merged_and_compiled_is_seen(tiny_config, batch, tmp_path):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    other = moved(copy.deepcopy(model), seed=2).eval()
    other.save_adapter(tmp_path)
    compiled = torch.compile(model, backend="aot_eager")
    before = logits(compiled, batch)
    model.load_adapter(tmp_path)
    assert relative(logits(compiled, batch), logits(other, batch)) < 1e-5
    assert relative(before, logits(other, batch)) > 1e-3
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1, fused=True)
    model(**batch).loss.backward()
    optimizer.step()
    assert relative(logits(compiled, batch), logits(model, batch)) < 1e-5


def test_a_step_of_another_model_builds_nothing_anew(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer = linears(model)[0]
    merged = layer.merged_weight()
    other = torch.nn.Linear(2, 2)
    other(torch.ones(1, 2)).sum().backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert layer.merged_weight() is merged


def test_a_model_built_in_inference_mode(tiny_config, batch):
    with torch.inference_mode():
        model = adapted(tiny_config, config_for("use_TTLoRA"))
        assert model(**batch).logits.isfinite().all()
        assert model.merged


def test_threads_that_share_a_model(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer, errors = linears(model)[0], []

    def work():
        try:
            for _ in range(200):
                layer.merged_weight().sum()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    with torch.no_grad():
        for _ in range(200):
            layer.branch.tt.weight.cores[0].mul_(1.0)
    for thread in threads:
        thread.join()
    assert not errors


def test_a_trained_weight_gets_its_gradient(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    layer = linears(model)[0]
    layer.branch.requires_grad_(False)
    layer.weight.requires_grad_(True)
    model(**batch).loss.backward()
    assert layer.weight.grad.any()


def test_the_rounding_loss_of_no_change_is_zero(tiny_config):
    torch.manual_seed(0)
    config = config_for("use_TTLoRA", merge_dtype="bfloat16")
    model = modify_model_after_init(T5ForConditionalGeneration(tiny_config), config).eval()
    assert set(rounding_losses(model).values()) == {0.0}


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


def test_a_branch_that_is_no_matrix_says_so(tiny_config, batch):
    model = adapted(tiny_config, config_for("use_TTLoRA activated"))
    assert not model.merged
    parallel = merge_adapters(model)
    assert len(parallel) == 8
    assert set(parallel.values()) == {"an activation between its cores makes it no matrix"}


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("case", SOME)
def test_copies_are_merged_by_themselves(tiny_config, batch, case, copier):
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


@pytest.mark.parametrize("case", ["use_TTLoRA", "ia3"])
def test_compiled(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case))
    expected = logits(model, batch)
    compiled = torch.compile(model, backend="aot_eager")
    assert relative(logits(compiled, batch), expected) < 1e-5
    compiled.train()
    loss = compiled(**batch).loss
    loss.backward()
    assert linears(model)[0].branch.parameters().__next__().grad.any()
    moved(model, seed=3)
    compiled.eval()
    after = logits(compiled, batch)
    assert relative(after, expected) > 1e-3
    assert relative(after, logits(model, batch)) < 1e-5


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
