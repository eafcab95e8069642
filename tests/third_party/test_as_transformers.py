"""Without adapters our class does what that of transformers does, bit for bit: the behaviours of their own T5 tests."""

import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from tests.twins import equal, pair, trained


def padded(batch):
    mask = torch.ones_like(batch["input_ids"])
    mask[0, -2:] = mask[1, -1:] = 0
    return {"input_ids": batch["input_ids"], "attention_mask": mask}


CALLS = {
    "labels": lambda model, batch: model(**batch),
    "ignored labels": lambda model, batch: model(
        **{**batch, "labels": torch.where(batch["labels"] > 60, -100, batch["labels"])}
    ),
    "decoder_input_ids": lambda model, batch: model(input_ids=batch["input_ids"], decoder_input_ids=batch["labels"]),
    "both": lambda model, batch: model(**batch, decoder_input_ids=batch["labels"].flip(1)),
    "masks": lambda model, batch: model(
        **padded(batch), decoder_input_ids=batch["labels"], decoder_attention_mask=(batch["labels"] > 20).long()
    ),
    "embeddings": lambda model, batch: model(
        inputs_embeds=model.get_input_embeddings()(batch["input_ids"]),
        decoder_inputs_embeds=model.get_input_embeddings()(batch["labels"]),
    ),
    "encoder_outputs": lambda model, batch: model(
        encoder_outputs=(model.encoder(batch["input_ids"])[0],), labels=batch["labels"]
    ),
    "everything": lambda model, batch: model(
        **batch, output_hidden_states=True, output_attentions=True, use_cache=False
    ),
    "a tuple": lambda model, batch: model(**batch, return_dict=False)[:2],
    "shifted": lambda model, batch: model.prepare_decoder_input_ids_from_labels(batch["labels"]),
    "half": lambda model, batch: model.bfloat16()(**batch),
    "to": lambda model, batch: model.to(torch.float64)(**batch),
    "autocast": lambda model, batch: autocast(model, batch),
    "encoder alone": lambda model, batch: model.get_encoder()(**padded(batch)),
    "with a cache": lambda model, batch: cached(model, batch),
    "train": lambda model, batch: trained(model, batch),
    "checkpointed": lambda model, batch: checkpointed(model, batch),
    "frozen embedding": lambda model, batch: frozen(model, batch),
    "input gradients": lambda model, batch: input_gradients(model, batch),
    "resized": lambda model, batch: resized(model, 130, batch),
    "shrunk": lambda model, batch: resized(model, 90, {key: value % 90 for key, value in batch.items()}),
    "unchanged": lambda model, batch: resized(model, 120, batch),
    "not resized": lambda model, batch: resized(model, None, batch),
    "multiple": lambda model, batch: resized(model, 100, batch, pad_to_multiple_of=64),
    "only a multiple": lambda model, batch: resized(model, None, batch, pad_to_multiple_of=64),
    "new embedding": lambda model, batch: new_embedding(model, batch),
    "eager": lambda model, batch: eager(model, batch),
}


def autocast(model, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return model(**batch).logits


def cached(model, batch):
    """Decode in two steps, and all at once."""
    first = model(input_ids=batch["input_ids"], decoder_input_ids=batch["labels"][:, :2], use_cache=True)
    second = model(
        encoder_outputs=(first.encoder_last_hidden_state,),
        decoder_input_ids=batch["labels"][:, 2:],
        past_key_values=first.past_key_values,
        use_cache=True,
    )
    whole = model(input_ids=batch["input_ids"], decoder_input_ids=batch["labels"]).logits
    steps = torch.cat((first.logits, second.logits), 1)
    assert torch.allclose(steps, whole, atol=1e-4)
    return steps


def checkpointed(model, batch):
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    return trained(model, batch)


def frozen(model, batch):
    model.get_input_embeddings().requires_grad_(False)
    return trained(model, batch)[0]


def input_gradients(model, batch):
    model.enable_input_require_grads()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model(**batch).logits.requires_grad


def resized(model, size, batch, **keys):
    torch.manual_seed(2)
    embedding = model.resize_token_embeddings(size, **keys)
    assert embedding is model.get_input_embeddings()
    assert model.get_output_embeddings().weight is embedding.weight
    return model.config.vocab_size, embedding.weight, model(**batch).logits


def new_embedding(model, batch):
    torch.manual_seed(2)
    model.set_input_embeddings(torch.nn.Embedding(120, 32))
    untied = model(**batch).logits
    model.tie_weights()
    return untied, model(**batch).logits, model.get_output_embeddings().weight


def eager(model, batch):
    model.set_attn_implementation("eager")
    return model(**batch, output_attentions=True)


@pytest.mark.parametrize("projection", ["relu", "gated-gelu"])
@pytest.mark.parametrize("call", CALLS)
def test_calls(batch, call, projection):
    theirs, ours = (CALLS[call](model, batch) for model in pair(feed_forward_proj=projection))
    assert equal(theirs, ours)


def outputs_of_encoder(model, batch):
    return {"encoder_outputs": BaseModelOutput(model.encoder(batch["input_ids"])[0])}


GENERATION = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5},
    "sampling": {"do_sample": True, "top_k": 20, "temperature": 1.3},
    "beam sampling": {"do_sample": True, "num_beams": 2, "top_p": 0.9},
    "scores": {"return_dict_in_generate": True, "output_scores": True, "num_beams": 2},
    "hidden": {"return_dict_in_generate": True, "output_hidden_states": True, "output_attentions": True},
    "forced": {"forced_bos_token_id": 5, "min_new_tokens": 3, "no_repeat_ngram_size": 2},
    "prompted": {"decoder_input_ids": torch.tensor([[0, 7], [0, 8], [0, 9]])},
    "static": {"cache_implementation": "static"},
}


@pytest.mark.parametrize("variant", GENERATION)
def test_generation(batch, variant):
    results = []
    for model in pair():
        torch.manual_seed(4)
        results.append(model.generate(**padded(batch), max_new_tokens=6, **GENERATION[variant]))
    assert equal(*results)


@pytest.mark.parametrize("given", ["inputs_embeds", "encoder_outputs"])
def test_generation_from_what_was_computed(batch, given):
    results = []
    for model in pair():
        embedded = model.get_input_embeddings()(batch["input_ids"])
        inputs = {"inputs_embeds": embedded} if given == "inputs_embeds" else outputs_of_encoder(model, batch)
        results.append(model.generate(**inputs, max_new_tokens=6))
        assert torch.equal(results[-1], model.generate(batch["input_ids"], max_new_tokens=6))
    assert equal(*results)
