"""Backbones in half precision: what is trained is float32 and learns as in float32, all else stays as it was."""

import copy
import json
from contextlib import nullcontext

import pytest
import torch
import transformers

from adapters import AdapterConfig, AdapterPart
from tests.methods import CASES, ONE_A_SITE, STARTS_ELSEWHERE, adapted, config_for, logits, moved, relative
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.trained_modules import TrainedNorm
from utils import freeze_model_params, modify_model_after_init

HALF = [torch.bfloat16, torch.float16]
# Tensors of the backbone that are trained, alone and beside adapters.
UNFROZEN = {
    "adapters and norms": config_for("adapters", unfreeze_layer_norms=True),
    "biases, norms and the head": config_for("bitfit", freeze_bitfit_lm_head=False, unfreeze_layer_norms=True),
    "a branch and the head": config_for("use_LoRA", unfreeze_lm_head=True),
    "all": AdapterConfig(),
    "all but the embedding": AdapterConfig(freeze_embedding=True),
}


def every_case(dtype: torch.dtype) -> list[tuple[str, torch.dtype]]:
    """Every case in `dtype`, and a few in the other half precision."""
    other = HALF[HALF[0] == dtype]
    return [(name, dtype) for name in (*CASES, *UNFROZEN)] + [(name, other) for name in (*ONE_A_SITE, *UNFROZEN)]


def build(config, name: str, dtype: torch.dtype, weights: torch.dtype | None = None) -> T5ForConditionalGeneration:
    """The adapted model of a case, untrained; weights: the dtype that the backbone's are rounded to."""
    torch.manual_seed(0)
    backbone = T5ForConditionalGeneration(config).to(weights or dtype).to(dtype)
    torch.manual_seed(1)
    return modify_model_after_init(backbone, UNFROZEN[name] if name in UNFROZEN else config_for(name))


def trained(model) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def watched(model, batch) -> tuple[dict[str, torch.dtype], torch.Tensor]:
    """The dtypes of what the model's modules return, by name, and the logits."""
    seen = {}

    def note(name):
        def hook(module, args, output):
            output = output[0] if isinstance(output, tuple) else output
            seen[name] = getattr(output, "dtype", None)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    result = logits(model, batch)
    for hook in hooks:
        hook.remove()
    return seen, result


@pytest.mark.parametrize(("name", "dtype"), every_case(torch.float16))
def test_trained_tensors_are_float32_and_hidden_states_are_not(loaded_t5, batch, name, dtype):
    """float16 is loaded, so that `wo` is in float32 as transformers has it."""
    plain = loaded_t5(dtype)
    model = modify_model_after_init(loaded_t5(dtype), UNFROZEN[name] if name in UNFROZEN else config_for(name))
    dtypes = {name: parameter.dtype for name, parameter in plain.named_parameters()}
    added = {p for part in model.modules() if isinstance(part, AdapterPart) for p in part.parameters()}
    for key, parameter in model.named_parameters():
        wide = parameter.requires_grad or parameter in added
        assert parameter.dtype == (torch.float32 if wide else dtypes[key]), key
    random = name in ("both", "adapters and norms") or name in CASES and CASES[name][0] in STARTS_ELSEWHERE
    for mode in (False, True):
        (expected, plain_logits), (found, our_logits) = (watched(each.train(mode), batch) for each in (plain, model))
        assert {key: found.get(key, dtype) for key, dtype in expected.items()} == expected
        if not random and "svd" not in name:
            assert torch.equal(our_logits, plain_logits)
    model(**batch).loss.backward()
    assert {parameter.grad.dtype for parameter in trained(model).values()} == {torch.float32}
    model.eval().generate(batch["input_ids"], max_new_tokens=3)


@pytest.mark.parametrize(("name", "dtype"), every_case(torch.bfloat16))
def test_steps_change_each_tensor_as_in_float32(shallow_config, batch, name, dtype):
    """Both models get the gradients of the half-precision one, so that only the arithmetic of the updates differs.

    The gradients themselves differ by the noise of the forward pass, in the backbone's own tensors too. The loss is
    scaled as a gradient scaler would: otherwise gradients below 1e-7 would be zero in float16.
    """
    half, single = (build(shallow_config, name, d, weights=dtype).train() for d in (dtype, torch.float32))
    pairs = [(p, trained(single)[key]) for key, p in trained(half).items()]
    before = [parameter.detach().clone() for _, parameter in pairs]
    assert all(torch.equal(a, b) for (a, _), b in zip(pairs, before, strict=True))
    optimizers = [torch.optim.Adam(parameters, lr=3e-4) for parameters in zip(*pairs, strict=True)]
    for step in range(5):
        for model in (half, single):
            model.zero_grad()
        (1024 * half(**batch).loss).backward()
        if step == 3:
            (1024 * single(**batch).loss).backward()
            ours, theirs = (torch.cat([p.grad.flatten() for p in side]) for side in zip(*pairs, strict=True))
            assert relative(ours, theirs) < (0.15 if dtype == torch.bfloat16 else 0.05)
        for ours, theirs in pairs:
            theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for (ours, theirs), start in zip(pairs, before, strict=True):
        assert relative(ours.detach() - start, theirs.detach() - start) < 0.05
        assert not torch.equal(ours, start) or not theirs.grad.any()


@pytest.mark.parametrize("name", [*ONE_A_SITE, "adapters and norms", "all"])
def test_conversions_leave_what_is_trained_in_float32(shallow_config, batch, name):
    """Order does not matter: a model converted after attaching computes as one that was converted before."""
    model = moved(build(shallow_config, name, torch.float32, torch.bfloat16))
    model(**batch).loss.backward()
    before = {key: parameter.detach().clone() for key, parameter in trained(model).items()}
    expected = moved(build(shallow_config, name, torch.bfloat16)).eval()
    for steps in ([torch.bfloat16], [torch.bfloat16, torch.float32, torch.bfloat16]):
        half = copy.deepcopy(model).eval()
        for dtype in steps:
            half.to(dtype)
        freeze_model_params(half)
        assert all(torch.equal(parameter, before[key]) for key, parameter in trained(half).items())
        assert all(p.grad is None or p.grad.dtype == p.dtype for p in half.parameters())
        (dtypes, found), (expected_dtypes, expected_logits) = watched(half, batch), watched(expected, batch)
        assert dtypes == expected_dtypes
        assert torch.equal(found, expected_logits)
    assert {tensor.dtype for tensor in model.double().state_dict().values()} == {torch.float64}
    assert logits(model, batch).dtype == torch.float64


@pytest.mark.parametrize("name", [*ONE_A_SITE, "biases, norms and the head", "all"])
@pytest.mark.parametrize("dtype", HALF)
def test_autocast_and_the_gradient_scaler(shallow_config, batch, name, dtype):
    """The scaler refuses gradients in float16."""
    for weights in HALF:
        model = build(shallow_config, name, weights).train()
        before = {key: parameter.detach().clone() for key, parameter in trained(model).items()}
        optimizer = torch.optim.SGD(trained(model).values(), lr=1.0)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        for _ in range(2):
            with torch.autocast("cpu", dtype):
                loss = model(**batch).loss
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(trained(model).values(), 1.0)
            assert norm.isfinite()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        assert any(not torch.equal(parameter, before[key]) for key, parameter in trained(model).items())


@pytest.mark.parametrize("name", [*ONE_A_SITE, "a branch and the head", "all"])
def test_copies_checkpointing_and_merging_in_half_precision(shallow_config, batch, name):
    model = moved(build(shallow_config, name, torch.bfloat16)).train()
    twin = copy.deepcopy(model)
    twin.gradient_checkpointing_enable()
    for each in (model, twin):
        each(**batch).loss.backward()
    ours, theirs = (torch.cat([p.grad.flatten() for p in trained(each).values()]) for each in (twin, model))
    assert relative(ours, theirs) < 0.05
    parallel = logits(model, batch)
    assert relative(logits(model.eval(), batch), parallel) < 5e-2


def test_an_adapter_in_half_precision_is_loaded_exactly(tiny_t5, batch, tmp_path):
    """Earlier versions wrote adapters in the backbone's dtype."""
    config = config_for("ia3", unfreeze_layer_norms=True)
    old = moved(T5ForConditionalGeneration.from_pretrained(tiny_t5, dtype=torch.bfloat16, adapter_config=config))
    for parameter in trained(old).values():
        parameter.data = parameter.data.bfloat16()
    old.save_adapter(tmp_path)
    new = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for key, parameter in trained(new).items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, trained(old)[key].float())
    assert torch.equal(logits(new.eval(), batch), logits(old.eval(), batch))


def test_a_trained_head_does_not_change_the_fingerprint_of_the_backbone(tiny_t5, tmp_path):
    """The head is the embedding, by whose dtype transformers names the dtype of the model."""
    config = config_for("use_LoRA", unfreeze_lm_head=True)
    for dtype in HALF:
        model = T5ForConditionalGeneration.from_pretrained(tiny_t5, dtype=dtype, adapter_config=config)
        moved(model).save_adapter(tmp_path)
        assert json.loads((tmp_path / "lab_adapter.json").read_text())["base_fingerprint"]["dtype"] == str(dtype)
        T5ForConditionalGeneration.from_pretrained(tmp_path)  # a backbone in another precision


@pytest.mark.parametrize("name", ["all", "all but the embedding"])
def test_a_whole_model_is_saved_so_that_transformers_loads_it_exactly(tiny_t5, tmp_path, name):
    base = T5ForConditionalGeneration.from_pretrained(tiny_t5, dtype=torch.bfloat16)
    model = moved(modify_model_after_init(base, UNFROZEN[name]), by=1e-3)
    model.save_pretrained(tmp_path)
    stock = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, model.state_dict()[key]) for key, tensor in stock.state_dict().items())


@pytest.mark.parametrize("name", ["use_LoRA", "ia3", "use_ScaleNorm", "intrinsic_model", "all"])
@pytest.mark.parametrize("dtype", HALF)
def test_an_export_loses_nothing_that_was_trained(tiny_t5, tmp_path, capsys, name, dtype):
    base = T5ForConditionalGeneration.from_pretrained(tiny_t5, dtype=dtype)
    model = modify_model_after_init(base, UNFROZEN[name] if name in UNFROZEN else config_for(name))
    frozen = {p: p.detach().clone() for p in model.parameters() if not p.requires_grad}
    model.merge_and_export(tmp_path / "untrained")
    plain = T5ForConditionalGeneration.from_pretrained(tiny_t5, dtype=dtype).state_dict()
    same = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "untrained").state_dict()
    assert all(torch.equal(tensor, plain[key]) and tensor.dtype == plain[key].dtype for key, tensor in same.items())
    moved(model, by=1e-3).merge_and_export(tmp_path / "trained")
    narrow = str(dtype).removeprefix("torch.")
    assert f"to the backbone's {narrow} would lose part of what was trained" in capsys.readouterr().err
    exported = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "trained").float()
    wide = copy.deepcopy(model).float().eval()
    ids = torch.arange(3, 10)[None]
    assert exported.dtype == torch.float32
    assert relative(exported(input_ids=ids, labels=ids).logits, wide(input_ids=ids, labels=ids).logits) < 1e-5
    assert all(torch.equal(parameter, before) for parameter, before in frozen.items())


def test_a_trained_norm_is_transformers_norm(tiny_config):
    for dtype in (torch.float32, *HALF):
        plain = T5ForConditionalGeneration(tiny_config).to(dtype).encoder.final_layer_norm
        ours = copy.deepcopy(plain)
        ours.__class__ = TrainedNorm
        ours.track_precision(ours.weight)
        x = torch.randn(4, 5, 32)
        for rows in (x.to(dtype), x):
            for context in (nullcontext(), torch.autocast("cpu", torch.bfloat16)):
                with context:
                    assert torch.equal(ours(rows), plain(rows))


def test_what_was_attached_before_the_dtype_changes_moves_as_one(tiny_config, batch):
    """Merged weights are those of the dtype that the model has now."""
    model = adapted(tiny_config, config_for("use_LoRA")).to(torch.bfloat16)
    linear = model.encoder.block[0].layer[1].DenseReluDense.wi
    assert linear.merged_weight().dtype == torch.bfloat16
    assert linear.branch.A.dtype == torch.float32
    assert logits(model, batch).dtype == torch.bfloat16
