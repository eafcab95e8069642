"""Every method inside T5: what it trains, where it starts, its checkpoints, precisions and copies."""

import copy
import json
import pickle
import shutil

import pytest
import torch
import transformers

import t3nsor
from adapters import METHODS, AdapterConfig, AdapterPart, ConfigError
from seq2seq.settings import load_settings
from t3nsor.tensor_train import CoreChain
from tests.conftest import ROOT
from tests.methods import CASES, STARTS_ELSEWHERE, adapted, config_for, moved, relative
from third_party.models.t5 import T5Config, T5ForConditionalGeneration, adapter_checkpoint
from utils import count_parameters, freeze_model_params, modify_model_after_init, parameters_by_component

# The published methods on T5-base with 32,128 rows of embedding. SAID: 257 of the 20,000 scale one tensor each.
PUBLISHED = {
    "baseline": 222_903_552,
    "adapters": 1_855_104,
    "pfeiffer_adapters": 951_360,
    "adapters_drop": 1_101_984,
    "low_rank_adapters": 161_664,
    "phm_adapters": 398_976,
    "compacter": 161_728,
    "compacter++": 104_704,
    "bitfit": 282_496,
    "intrinsic": 20_000,
    "intrinsic_said": 20_000,
    "prompt_tuning_random_init": 76_800,
    "prompt_tuning_tokens_init": 76_800,
    "controls/norms_only": 47_616,
    # By hand: l for keys and values of 36 attentions, and for the 24 inner feed-forward states.
    "ia3": 36 * 2 * 768 + 24 * 3072,
    "prefix_tuning": 36 * 2 * 10 * 768,
    "lora": 48 * 8 * (768 + 3072),
    "scale_norm": 62,
    "kronecker_layer_norm": 62 * 4 * (12 + 16) + 16,
}
NORMS_OF_BASE = 62 * 768


def count_on_base(settings: dict, **sizes) -> int:
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config.from_shape("t5-base", **sizes))
        return count_parameters(modify_model_after_init(model, AdapterConfig(**settings)))["trainable"]


def keys_of(name: str) -> dict:
    return load_settings(str(ROOT / f"configs/{name}.json"), [])[0].adapter.to_dict()


@pytest.mark.parametrize("name", PUBLISHED)
def test_exact_trainable_parameters_on_t5_base(name):
    assert count_on_base(keys_of(name)) == PUBLISHED[name]


def test_the_table_of_the_ancestor_at_its_vocabulary():
    """Baseline and bitfit depend on the embedding's rows; the ancestor resized it to the tokenizer's 32,100."""
    assert count_on_base(keys_of("baseline"), vocab_size=32_100) == 222_882_048
    assert count_on_base(keys_of("bitfit"), vocab_size=32_100) == 282_468
    assert count_on_base(keys_of("compacter"), vocab_size=32_100) == 161_728


def test_variants_of_bitfit_on_t5_base():
    bitfit, embedding = keys_of("bitfit"), 32_128 * 768
    assert count_on_base({**bitfit, "freeze_bitfit_lm_head": False}) == 282_496 + embedding
    assert count_on_base({**bitfit, "unfreeze_lm_head": True}) == 282_496 + embedding
    assert count_on_base({**bitfit, "freeze_bitfit_lm_head_all": True}) == 282_496 - 32_128
    assert count_on_base({"freeze_backbone": True, "unfreeze_lm_head": True}) == embedding


DOWN, UP, HIDDEN = ((8, 8, 12), (4, 6, 8)), ((4, 6, 8), (8, 8, 12)), 192
TT = t3nsor.parameter_count
TENSOR_TRAINS = {
    "tt_adapter": lambda: 48 * (TT(DOWN, 8) + TT(UP, 8) + HIDDEN + 768) + NORMS_OF_BASE,
    "tr_adapter": lambda: 48 * (TT(DOWN, 4, ring=True) + TT(UP, 4, ring=True) + HIDDEN + 768) + NORMS_OF_BASE,
    "tt_adapter_single": lambda: 48 * (TT((768, 768), 8, 3) + 768) + NORMS_OF_BASE,
    "tt_adapter_expansion": lambda: 48 * (TT((768, 1536), 4, 3) + TT((1536, 768), 4, 3) + 1536 + 768) + NORMS_OF_BASE,
    "tt_adapter_shared_cores": lambda: (
        48 * (TT(DOWN, 8) + TT(UP, 8) - 8 * 4 * 8 - 4 * 8 * 8 + TT((4, 6, 8), 2) + TT((8, 8, 12), 2))
        + 2 * 8 * 4 * 8
        + NORMS_OF_BASE
    ),
    "tt_lora": lambda: 48 * TT((768, 3072), 8, 2) + NORMS_OF_BASE,
    "tt_lora_svd": lambda: 48 * TT((768, 3072), 8, 2) + NORMS_OF_BASE,
    "tr_lora": lambda: 48 * TT((768, 3072), 4, 2, ring=True) + NORMS_OF_BASE,
    "tt_lora_separate": lambda: 48 * (TT((768, 16), 4, 2) + TT((16, 3072), 4, 2)) + NORMS_OF_BASE,
    "tt_lora_attention": lambda: 72 * 8 * (768 + 768) + NORMS_OF_BASE,
    "tt_cross_layer": lambda: TT((768, 3072), 8, 2) + 8 * 8 * (24 + 2) + NORMS_OF_BASE,
    "tt_basis": lambda: 48 * 64 + NORMS_OF_BASE,
    "tt_layer_norm": lambda: 62 * TT((8, 8, 12), 2),
}


@pytest.mark.parametrize("name", TENSOR_TRAINS)
def test_tensor_trains_on_t5_base_train_what_t3nsor_counts(name):
    assert count_on_base(keys_of(name)) == TENSOR_TRAINS[name]()


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_exactly_the_trainable_tensors(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case, unfreeze_layer_norms="intrinsic" not in case)).train()
    model(**batch).loss.backward()
    marked = {p for part in model.modules() if isinstance(part, AdapterPart) for p in part.parameters()}
    frozen = {p for m in model.modules() if isinstance(m, CoreChain) and m.trainable for p in m.parameters()}
    trained = 0
    for name, parameter in model.named_parameters():
        norm = name.endswith("layer_norm.weight") and "intrinsic" not in case
        if parameter.requires_grad:
            assert parameter in marked or norm, name
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
            trained += 1
        else:
            assert parameter.grad is None, name
            assert parameter not in marked or "frozen" in case or "fixed" in case or parameter in frozen, name
            assert not norm, name
    assert trained


@pytest.mark.parametrize("case", CASES)
def test_start_and_one_step(tiny_config, batch, case):
    """The start is the backbone's, where promised; a step changes all that is trained and nothing else."""
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(tiny_config).eval()
    torch.manual_seed(0)
    model = modify_model_after_init(T5ForConditionalGeneration(tiny_config), config_for(case)).eval()
    with torch.no_grad():
        distance = relative(model(**batch).logits, base(**batch).logits)
    if CASES[case][0] not in STARTS_ELSEWHERE and case != "both":
        assert distance < 1e-5
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    for _ in range(5):  # what stands behind zero cores gets its gradient later
        optimizer.zero_grad()
        model.train()(**batch).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) != parameter.requires_grad, name
    model.eval()
    with torch.no_grad():
        assert relative(model(**batch).logits, base(**batch).logits) > 1e-4


@pytest.mark.parametrize("case", CASES)
def test_checkpoint_round_trip(tiny_config, batch, tmp_path, case):
    torch.manual_seed(0)
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / "base")
    config = config_for(case, unfreeze_layer_norms="intrinsic" not in case)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapter_config=config)
    freeze_model_params(model)
    moved(model).eval().save_adapter(tmp_path / "adapter")
    torch.manual_seed(7)  # random cores, rules and projections come from the file
    fresh = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", adapter_config=config)
    with torch.no_grad():  # with gradients torch picks its kernels by what is frozen, and the last bits differ
        expected = model(**batch).logits
        assert not torch.allclose(fresh(**batch).logits, expected)
        fresh.load_adapter(tmp_path / "adapter")
        whole = T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter")
        for other in (fresh, whole):
            assert torch.equal(other(**batch).logits, expected)
    texts = [each.generate(batch["input_ids"], max_new_tokens=5, num_beams=2) for each in (model, whole)]
    assert torch.equal(*texts)
    assert (tmp_path / "adapter/adapter_model.safetensors").stat().st_size < 80_000
    card = (tmp_path / "adapter/README.md").read_text()
    assert f"# {config.method}" in card
    assert f"{count_parameters(model)['trainable']:,} parameters" in card


def test_an_adapter_is_not_put_on_another_backbone(tiny_config, tmp_path):
    for seed in (0, 1):
        torch.manual_seed(seed)
        T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / f"base{seed}")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base0")
    model = modify_model_after_init(base, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path / "adapter")
    half = T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    shutil.rmtree(tmp_path / "base0")
    (tmp_path / "base1").rename(tmp_path / "base0")
    with pytest.raises(ConfigError, match="whose weights were others than those of this model"):
        T5ForConditionalGeneration.from_pretrained(tmp_path / "adapter")


def test_a_write_that_is_interrupted_leaves_the_old_adapter(tiny_config, tmp_path, monkeypatch):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path)
    before = (tmp_path / "adapter_model.safetensors").read_bytes()

    def interrupted(tensors, path, **kwargs):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter_checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        moved(model).save_adapter(tmp_path)
    assert (tmp_path / "adapter_model.safetensors").read_bytes() == before


FOLDABLE = [
    case for case, (name, _) in CASES.items() if METHODS[name].foldable and case not in ("both", "use_TTLoRA activated")
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("case", FOLDABLE)
def test_export_is_a_plain_t5(tiny_config, batch, tmp_path, case, dtype, capfd):
    torch.manual_seed(0)
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path / "base")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base", dtype=dtype)
    model = moved(modify_model_after_init(base, config_for(case))).eval()
    model.merge_and_export(tmp_path / "plain")
    capfd.readouterr()
    stock, report = transformers.T5ForConditionalGeneration.from_pretrained(
        tmp_path / "plain", dtype=dtype, output_loading_info=True
    )
    assert not any(report.values()), report
    printed = capfd.readouterr()
    assert "warn" not in (printed.out + printed.err).lower()
    ours = T5ForConditionalGeneration.from_pretrained(tmp_path / "plain", dtype=dtype)
    with torch.no_grad():
        expected = model(**batch).logits
        for other in (stock, ours):
            assert relative(other(**batch).logits, expected) < (1e-6 if dtype == torch.float32 else 2e-2)
    if dtype == torch.float32:
        texts = [each.generate(batch["input_ids"], max_new_tokens=8) for each in (model, stock, ours)]
        assert torch.equal(texts[0], texts[1])
        assert torch.equal(texts[0], texts[2])
    assert json.loads((tmp_path / "plain/config.json").read_text())["architectures"] == ["T5ForConditionalGeneration"]


@pytest.mark.parametrize("case", [case for case in CASES if case not in FOLDABLE])
def test_what_a_plain_t5_cannot_hold_is_not_exported(tiny_config, tmp_path, case):
    model = adapted(tiny_config, config_for(case))
    with pytest.raises(ConfigError, match="cannot be folded into"):
        model.merge_and_export(tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_export_does_not_write_into_an_adapter(tiny_config, tmp_path):
    model = adapted(tiny_config, config_for("use_TTLoRA"))
    model.save_adapter(tmp_path)
    with pytest.raises(ConfigError, match="holds an adapter"):
        model.merge_and_export(tmp_path)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("case", CASES)
def test_a_copy_has_adapters_of_its_own(tiny_config, batch, case, copier):
    model = adapted(tiny_config, config_for(case))
    with torch.no_grad():
        before = model(**batch).logits
        twin = copier(model)
        assert torch.equal(twin(**batch).logits, before)
        moved(twin)
        assert torch.equal(model(**batch).logits, before)
        assert not torch.equal(twin(**batch).logits, before)
    shared = [len({id(t) for t in m.state_dict(keep_vars=True).values()}) for m in (model, twin)]
    assert shared[0] == shared[1]


@pytest.mark.parametrize("case", CASES)
def test_half_precision_and_autocast(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case))
    with torch.no_grad():
        expected = model(**batch).logits
        for merged in (True, False):
            model.train(not merged)
            with torch.autocast("cpu", torch.bfloat16):
                assert relative(model(**batch).logits.float(), expected) < 0.1
    half = adapted(tiny_config, config_for(case), dtype=torch.bfloat16)
    with torch.no_grad():
        logits = half(**batch).logits
        assert logits.dtype == torch.bfloat16
        if "svd" not in case:  # of a rounded weight it is another one, from which the cores are moved elsewhere
            assert relative(logits.float(), expected) < 0.1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES)
def test_a_backbone_loaded_in_half_precision(tiny_config, batch, tmp_path, case, dtype):
    """In float16 T5 keeps `wo` in float32: what stands behind and beside it meets another precision than its own."""
    T5ForConditionalGeneration(tiny_config).save_pretrained(tmp_path)
    norm_before = {"add_layer_norm_before_adapter": True}
    config = config_for(case, **norm_before, unfreeze_layer_norms="intrinsic" not in case)
    model = T5ForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype, adapter_config=config)
    freeze_model_params(model)
    for mode in (True, False):
        loss = model.train(mode)(**batch).loss
        loss.backward()
        assert loss.isfinite()
    model.generate(batch["input_ids"], max_new_tokens=3)


@pytest.mark.parametrize("case", CASES)
def test_gradient_checkpointing_changes_nothing(tiny_config, batch, case):
    model = adapted(tiny_config, config_for(case)).train()

    def gradients():
        model.zero_grad()
        model(**batch).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}

    expected = gradients()
    model.gradient_checkpointing_enable()
    for name, gradient in gradients().items():
        assert torch.allclose(gradient, expected[name], atol=1e-5), name


@pytest.mark.parametrize("case", CASES)
def test_padding_and_the_cache_change_nothing(tiny_config, batch, case):
    """What was attached sees the mask: longer rows beside a short one do not change it; nor does the cache."""
    model = adapted(tiny_config, config_for(case))
    ids = batch["input_ids"]
    short, mask = ids.clone(), torch.ones_like(ids)
    short[0, 4:], mask[0, 4:] = 0, 0
    with torch.no_grad():
        padded = model(input_ids=short, attention_mask=mask, labels=batch["labels"]).logits[0]
        alone = model(input_ids=ids[:1, :4], labels=batch["labels"][:1]).logits[0]
    assert torch.allclose(padded, alone, atol=1e-4)
    options = {"attention_mask": mask, "max_new_tokens": 6, "min_new_tokens": 6}
    assert torch.equal(model.generate(short, **options), model.generate(short, **options, use_cache=False))


def test_a_prompt_is_what_the_encoder_reads_first(tiny_config, batch):
    model = adapted(tiny_config, config_for("prefix_tuning"))
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(tiny_config).eval()
    prompt = model.encoder.prompt.embedding
    assert prompt.shape == (5, 32)
    embeds = torch.cat([prompt.expand(3, -1, -1), base.shared(batch["input_ids"])], dim=1)
    with torch.no_grad():
        expected = base(inputs_embeds=embeds, labels=batch["labels"]).logits
        assert torch.allclose(model(**batch).logits, expected, atol=1e-5)
        by_embeds = model(inputs_embeds=base.shared(batch["input_ids"]), labels=batch["labels"]).logits
        assert torch.allclose(by_embeds, expected, atol=1e-5)


def test_a_prompt_from_the_vocabulary(tiny_config):
    model = T5ForConditionalGeneration(tiny_config, config_for("prefix_tuning vocab"))
    same = (model.encoder.prompt.embedding.unsqueeze(1) == model.shared.weight).all(dim=2)
    assert same.sum(dim=1).tolist() == [1] * 5
    assert same.any(dim=0).sum() == 5


def test_prefixes_are_keys_and_values_before_all_others(tiny_config):
    """The first self-attention of the decoder, computed by hand with a causal mask."""
    model = adapted(tiny_config, config_for("attention_prefix_tuning", attention_prefix_length=3))
    attention = model.decoder.block[0].layer[0].SelfAttention
    seen = {}
    hook = attention.register_forward_hook(
        lambda module, args, kwargs, output: seen.update(x=args[0], y=output[0]), with_kwargs=True
    )
    ids = torch.randint(3, 120, (2, 6))
    with torch.no_grad():
        model(input_ids=ids, decoder_input_ids=ids)
        hook.remove()
        x = seen["x"]
        q, k, v = (getattr(attention, name)(x).view(2, 6, 4, 8).transpose(1, 2) for name in "qkv")
        k = torch.cat([attention.prefix.keys.expand(2, -1, -1, -1), k], dim=2)
        v = torch.cat([attention.prefix.values.expand(2, -1, -1, -1), v], dim=2)
        scores = q @ k.transpose(2, 3)
        scores[..., 3:] += attention.compute_bias(6, 6)
        scores[..., 3:].masked_fill_(torch.ones(6, 6).triu(1).bool(), -torch.inf)
        y = attention.o((scores.softmax(-1) @ v).transpose(1, 2).reshape(2, 6, 32))
    assert torch.allclose(seen["y"], y, atol=1e-5)


def test_a_subspace_moves_every_tensor_by_its_own_projection(tiny_config):
    model = adapted(tiny_config, config_for("intrinsic_said"))
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(tiny_config)
    for name, parameter in base.named_parameters():
        module = model.get_submodule(name.removesuffix(".weight"))
        change = (module.exact_weight() - parameter).norm()
        assert 0.3 < change / model.shared.branch.subspace.theta.norm() < 3, name
    assert model.shared.branch.delta(torch.float32) is not None
    assert len({module.branch.number for module in model.modules() if hasattr(module, "branch")}) == len(
        list(base.parameters())
    )


def test_the_backbone_is_counted_once_its_tensors_are_tied():
    for config in (None, config_for("use_ScaleNorm")):
        model = T5ForConditionalGeneration.from_pretrained("t5-nano", adapter_config=config)
        assert count_parameters(model)["backbone"] == model.backbone_size == 5_747_968


def test_components_add_up(tiny_config):
    model = adapted(tiny_config, config_for("both"))
    rows = {row.name: row for row in parameters_by_component(model)}
    counts = count_parameters(model)
    assert sum(row.trainable for row in rows.values()) == counts["trainable"]
    assert sum(row.total for row in rows.values()) == counts["total"]
    assert rows["norms"].trainable == rows["norms"].total == 12
    assert rows["head"].total == 120 * 32
    assert rows["biases"].trainable == 2 * (4 * 32 + 48 + 32 + 2 * 32) + 2 * (8 * 32 + 48 + 32 + 3 * 32) + 2 * 32 + 120
