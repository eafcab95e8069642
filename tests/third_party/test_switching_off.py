"""`adapters_disabled`: the model computes as its backbone, to the last bit, whatever is attached."""

import copy
import pickle
import threading

import pytest
import torch

from adapters import unmerge_adapters
from tests.methods import CASES, ONE_A_SITE, adapted, config_for, logits, moved
from third_party.models.t5 import T5ForConditionalGeneration
from utils import modify_model_after_init

TASKS = ("a", "b")


def plain(config, dtype=torch.float32):
    """The backbone of `adapted`."""
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config).to(dtype).eval()


def masked(batch):
    """The batch with padding in its first row."""
    mask = torch.ones_like(batch["input_ids"])
    mask[0, -2:] = 0
    return {**batch, "attention_mask": mask}


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_backbone(case, shallow_config, batch):
    model, batch = adapted(shallow_config, config_for(case)), masked(batch)
    expected, with_adapters = logits(plain(shallow_config), batch), logits(model, batch)
    assert not torch.equal(with_adapters, expected)
    with model.adapters_disabled():
        assert torch.equal(logits(model, batch), expected)
        assert torch.equal(logits(model.train(), batch), expected)  # there is no dropout
        assert torch.equal(logits(model.eval(), batch), expected)
    assert torch.equal(logits(model, batch), with_adapters)
    unmerge_adapters(model)
    with model.adapters_disabled():
        assert torch.equal(logits(model, batch), expected)


@pytest.mark.parametrize("case", [*ONE_A_SITE, "both"])
def test_in_half_precision(case, shallow_config, batch):
    model = adapted(shallow_config, config_for(case), dtype=torch.bfloat16)
    with model.adapters_disabled():
        assert torch.equal(logits(model, batch), logits(plain(shallow_config, torch.bfloat16), batch))


@pytest.mark.parametrize(("implementation", "dtype"), [("eager", torch.float32), ("sdpa", torch.float16)])
def test_the_attention_is_the_one_that_was_replaced(implementation, dtype, shallow_config, batch):
    """In a row without any token to attend to, float16 shows whether a mask was added to a negative bias."""
    backbone = plain(shallow_config, dtype)
    backbone.set_attn_implementation(implementation)
    with torch.no_grad():
        backbone.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight -= 40
    empty = masked(batch)
    empty["attention_mask"][1] = 0
    expected = [(given, logits(backbone, given)) for given in (batch, masked(batch), empty)]
    model = moved(modify_model_after_init(backbone, config_for("attention_prefix_tuning")))
    for given, plain_logits in expected:
        with model.adapters_disabled():
            assert torch.equal(logits(model, given), plain_logits)
        assert not torch.equal(logits(model, given), plain_logits)


@pytest.mark.parametrize("case", ["both", "prefix_tuning", "attention_prefix_tuning", "intrinsic_model"])
@pytest.mark.parametrize("options", [{}, {"num_beams": 2}])
def test_generation(case, options, shallow_config, batch):
    model, lengths = adapted(shallow_config, config_for(case)), {"max_new_tokens": 3, "min_new_tokens": 3}
    expected = plain(shallow_config).generate(batch["input_ids"], **options, **lengths)
    with model.adapters_disabled():
        assert torch.equal(model.generate(batch["input_ids"], **options, **lengths), expected)


def test_what_was_trained_of_the_backbone_stays_trained(shallow_config, batch):
    model = adapted(shallow_config, config_for("use_LoRA", unfreeze_layer_norms=True, unfreeze_lm_head=True))
    backbone = plain(shallow_config)
    backbone.load_state_dict({name: model.state_dict()[name] for name in backbone.state_dict()})
    with model.adapters_disabled():
        assert torch.equal(logits(model, batch), logits(backbone, batch))
    assert not torch.equal(logits(plain(shallow_config), batch), logits(backbone, batch))


@pytest.mark.parametrize("case", ["both", "attention_prefix_tuning", "intrinsic_model"])
def test_gradient_checkpointing_recomputes_as_the_forward_pass_was(case, shallow_config, batch):
    """The backward passes run after the block, or inside one that the forward pass did not see."""
    grads, keys = [], {} if "intrinsic" in case else {"unfreeze_lm_head": True}
    for checkpointing in (False, True):
        model = adapted(shallow_config, config_for(case, **keys)).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        on = model(**batch).loss
        with model.adapters_disabled():
            off = model(**batch).loss
            on.backward()
        if keys:
            off.backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-6) for name in grads[0])


def test_no_task_need_be_named(shallow_config, batch):
    model = adapted(shallow_config, config_for("adapters", tasks=TASKS))
    expected = logits(plain(shallow_config), batch)
    with model.adapters_disabled():
        assert torch.equal(logits(model, batch), expected)
        with torch.no_grad():
            assert torch.equal(model(**batch, task=["a", "b", "a"]).logits, expected)
        with pytest.raises(ValueError, match="task is 'c'"):
            model(**batch, task="c")


def test_blocks_nest_and_end_with_an_error(shallow_config, batch):
    model = adapted(shallow_config, config_for("use_LoRA"))
    with_adapters = logits(model, batch)
    with model.adapters_disabled():
        with model.adapters_disabled():
            pass
        assert not torch.equal(logits(model, batch), with_adapters)
    with pytest.raises(RuntimeError, match="on purpose"), model.adapters_disabled():
        raise RuntimeError("on purpose")
    assert torch.equal(logits(model, batch), with_adapters)


def test_other_threads_and_copies_keep_their_adapters(shallow_config, batch):
    model = adapted(shallow_config, config_for("both"))
    with_adapters, found = logits(model, batch), []
    with model.adapters_disabled():
        thread = threading.Thread(target=lambda: found.append(logits(model, batch)))
        thread.start()
        thread.join()
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        without = logits(model, batch)
        assert all(torch.equal(logits(copied, batch), with_adapters) for copied in copies)
    assert torch.equal(found[0], with_adapters)
    for copied in copies:
        with copied.adapters_disabled():
            assert torch.equal(logits(copied, batch), without)
            assert torch.equal(logits(model, batch), with_adapters)


def test_a_merge_inside_the_block_is_that_of_the_branch(shallow_config, batch):
    model = adapted(shallow_config, config_for("use_LoRA"))
    expected = logits(model, batch)
    with model.adapters_disabled():
        moved(model, by=0.0)  # makes the merged weights stale
        model.train().eval()
    assert torch.equal(logits(model, batch), expected)


def test_a_model_without_adapters(shallow_config, batch):
    model = plain(shallow_config)
    expected = logits(model, batch)
    with model.adapters_disabled():
        assert torch.equal(logits(model, batch), expected)
