"""Every method inside T5: what it trains, its initial output, precisions, copies, and what it computes."""

import copy
import pickle

import pytest
import torch

from adapters import AdapterPart
from common.errors import ConfigError
from t3nsor.tensor_train import CoreChain
from tests.methods import CASES, ONE_A_SITE, STARTS_ELSEWHERE, adapted, changed, config_for, moved, relative
from third_party.models.t5 import T5ForConditionalGeneration
from utils import freeze_model_params, modify_model_after_init


@pytest.mark.parametrize("case", CASES)
def test_gradients_reach_exactly_the_trainable_tensors_and_checkpointing_keeps_them(shallow_config, batch, case):
    model = adapted(shallow_config, config_for(case, unfreeze_layer_norms="intrinsic" not in case)).train()
    model(**batch).loss.backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
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
            never = "frozen" in case or "fixed" in case or ".basis." in name or parameter in frozen
            assert parameter not in marked or never, name
            assert not norm, name
    assert trained
    model.zero_grad()
    model.gradient_checkpointing_enable()
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, expected[name], atol=1e-5), name


@pytest.mark.parametrize("case", CASES)
def test_start_and_one_step(shallow_config, batch, case):
    """Where promised, the initial output is the backbone's; steps change every trainable parameter and nothing else."""
    torch.manual_seed(0)
    base = T5ForConditionalGeneration(shallow_config).eval()
    torch.manual_seed(0)
    model = modify_model_after_init(T5ForConditionalGeneration(shallow_config), config_for(case)).eval()
    with torch.no_grad():
        distance = relative(model(**batch).logits, base(**batch).logits)
    if CASES[case][0] not in STARTS_ELSEWHERE and case != "both":
        assert distance < 1e-5
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.01)
    for _ in range(3):  # a core multiplied by zero cores gets its gradient later
        optimizer.zero_grad()
        model.train()(**batch).loss.backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) != parameter.requires_grad, name
    model.eval()
    with torch.no_grad():
        assert relative(model(**batch).logits, base(**batch).logits) > 1e-4


@pytest.mark.parametrize("case", CASES)
def test_a_copy_has_adapters_of_its_own(shallow_config, batch, case):
    model = adapted(shallow_config, config_for(case))
    with torch.no_grad():
        before = model(**batch).logits
        for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(twin(**batch).logits, before)
            moved(twin)
            assert torch.equal(model(**batch).logits, before)
            assert not torch.equal(twin(**batch).logits, before)
            shared = [len({id(t) for t in m.state_dict(keep_vars=True).values()}) for m in (model, twin)]
            assert shared[0] == shared[1]


@pytest.mark.parametrize("case", CASES)
def test_half_precision_and_autocast(shallow_config, batch, case):
    model = adapted(shallow_config, config_for(case))
    with torch.no_grad():
        expected = model(**batch).logits
        for merged in (True, False):
            model.train(not merged)
            with torch.autocast("cpu", torch.bfloat16):
                assert relative(model(**batch).logits.float(), expected) < 0.1
    half = adapted(shallow_config, config_for(case), dtype=torch.bfloat16)
    with torch.no_grad():
        logits = half(**batch).logits
        assert logits.dtype == torch.bfloat16
        if "svd" not in case:  # the SVD of a rounded weight differs
            assert relative(logits.float(), expected) < 0.1


@pytest.mark.parametrize(
    ("case", "dtype"),
    [(case, torch.float16) for case in CASES] + [(case, torch.bfloat16) for case in ONE_A_SITE],
)
def test_a_backbone_loaded_in_half_precision(shallow_t5, batch, case, dtype):
    """In float16 T5 keeps `wo` in float32: adapters after it and beside it meet another precision than their own."""
    norm_before = {"add_layer_norm_before_adapter": True}
    config = config_for(case, **norm_before, unfreeze_layer_norms="intrinsic" not in case)
    model = T5ForConditionalGeneration.from_pretrained(shallow_t5, dtype=dtype, adapter_config=config)
    freeze_model_params(model)
    for mode in (True, False):
        loss = model.train(mode)(**batch).loss
        loss.backward()
        assert loss.isfinite()
    model.generate(batch["input_ids"], max_new_tokens=3)


@pytest.mark.parametrize("case", CASES)
def test_other_shapes_of_t5(shallow_config, batch, case):
    """As in T5 v1.1: gated feed-forward, untied head; and attention heads that do not add up to the model's width."""
    other = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "d_kv": 12}
    config = changed(shallow_config, **other)
    torch.manual_seed(0)
    plain = T5ForConditionalGeneration(config).eval()
    targets = {} if case == "ia3" else {"lora_targets": ["wi", "wo", "q", "o"]}
    model = adapted(config, config_for(case, **targets))
    with torch.no_grad():
        merged = model(**batch).logits
        assert relative(merged, plain(**batch).logits) > 1e-4
        model.train()
        assert relative(model(**batch).logits, merged) < 1e-5
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    names = {name for name in model.state_dict() if "branch" in name}
    if "use_TTLoRA" in case or case == "use_LoRA":
        assert any(".DenseReluDense.wi_1.branch" in name for name in names)


@pytest.mark.parametrize("case", CASES)
def test_padding_and_the_cache_change_nothing(tiny_config, batch, case):
    """Adapters respect the padding mask: longer rows in the batch do not change a short one; nor does the cache."""
    model = adapted(tiny_config, config_for(case))
    ids = batch["input_ids"]
    short, mask = ids.clone(), torch.ones_like(ids)
    short[0, 4:], mask[0, 4:] = 0, 0
    with torch.no_grad():
        padded = model(input_ids=short, attention_mask=mask, labels=batch["labels"]).logits[0]
        alone = model(input_ids=ids[:1, :4], labels=batch["labels"][:1]).logits[0]
    assert torch.allclose(padded, alone, atol=1e-4)
    options = {"attention_mask": mask, "max_new_tokens": 4, "min_new_tokens": 4}
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


@pytest.mark.parametrize("keys", [{"lora_targets": ["wi", "wo", "q", "v"]}, {"task_adapter_layers_encoder": [1]}])
def test_a_cross_layer_train_has_no_number_that_no_layer_reads(tiny_config, batch, keys):
    model = adapted(tiny_config, config_for("tt_cross_layer", **keys)).train()
    model(**batch).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad != 0).all(), name


def test_what_would_break_an_adapted_model_is_refused(tiny_config):
    model = adapted(tiny_config, config_for("attention_prefix_tuning"))
    with pytest.raises(ConfigError, match="its own attention"):
        model.set_attn_implementation("eager")
    with pytest.raises(ConfigError, match="resize the embedding first"):
        model.resize_token_embeddings(130)


def test_checkpointing_that_is_enabled_first_knows_the_tasks(tiny_config, batch):
    model = T5ForConditionalGeneration(tiny_config)
    model.gradient_checkpointing_enable()
    model.attach_adapters(config_for("adapters", tasks=("a", "b")))
    model.train()(**batch, task="b").loss.backward()
    used = {name.split(".adapters.")[1][0] for name, p in model.named_parameters() if p.grad is not None}
    assert used == {"b"}


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
