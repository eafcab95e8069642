"""The initial embedding of a backbone: what a linear map makes of the teacher's word pieces."""

import random
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.modeling_outputs import BaseModelOutput

from seq2seq import initial_weights
from seq2seq.initial_weights import code_size, codes_with_traces, initialise
from seq2seq.sentence_encoder import WORD, WordVectors
from tests.conftest import TOKENIZER as DIRECTORY
from third_party.models.t5 import T5ForConditionalGeneration

TOKENIZER = AutoTokenizer.from_pretrained(DIRECTORY)
WORDS = sorted({piece.strip().lower() for piece in TOKENIZER.get_vocab() if re.fullmatch(" [A-Za-z]{2,}", piece)})
BOTH = next(word for word in WORDS if {f" {word}", f" {word.title()}"} <= TOKENIZER.get_vocab().keys())
WHOLE = [word for word in WORDS if f" {word}" in TOKENIZER.get_vocab()]  # one token each
PIECES = ["[UNK]", *WORDS, "s", "##ly", "##ing", ".", "##."]


@pytest.fixture
def encoder(monkeypatch):
    """A teacher with word pieces of its own; returns its embedding, (pieces, 16)."""
    known = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    known.normalizer, known.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, unk_token="[UNK]")
    vectors = torch.nn.Embedding(len(PIECES), 16)
    model = SimpleNamespace(get_input_embeddings=lambda: vectors)
    monkeypatch.setattr(initial_weights, "load_encoder", lambda *_: (tokenizer, model))
    return vectors.weight.detach()


@pytest.fixture
def model(tiny_config):
    tiny_config.vocab_size = len(TOKENIZER)
    return T5ForConditionalGeneration(tiny_config)


@pytest.fixture
def linear(encoder):
    """The vectors of words that are a linear map of the teacher's embedding, and that map, (16, 40)."""
    texts = [" " + " ".join(random.Random(n).choices(WHOLE, k=12)) for n in range(600)]
    mapping = torch.randn(16, 40)
    words = [encoder[[PIECES.index(word) for word in WORD.findall(text)]] @ mapping for text in texts]
    starts = np.cumsum([0, *map(len, words)])
    return texts, WordVectors(torch.cat(words).half().numpy(), starts), mapping


def test_a_linear_teacher_is_found(encoder, model, linear, monkeypatch):
    """All but the scale, of which there is one: the encoder's output is normalised."""
    monkeypatch.setattr(initial_weights, "NOISE", 0.0)
    monkeypatch.setattr(initial_weights, "RIDGE", 1e-6)
    before = model.shared.weight.detach().clone()
    texts, vectors, mapping = linear
    initialise(model, TOKENIZER, texts, vectors)
    after = model.shared.weight.detach()
    ours = after[TOKENIZER.convert_tokens_to_ids([f" {word}" for word in WHOLE])]
    wanted = encoder[[PIECES.index(word) for word in WHOLE]] @ mapping[:, :32]
    assert len(ours) > 100
    scale = (ours * wanted).sum() / wanted.square().sum()
    torch.testing.assert_close(ours, scale * wanted, rtol=0, atol=0.05)
    low, high = after[TOKENIZER.convert_tokens_to_ids([f" {BOTH}", f" {BOTH.title()}"])]
    torch.testing.assert_close(low, high)
    sentinels = TOKENIZER.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100)])
    assert torch.equal(after[sentinels], before[sentinels])


def test_the_encoder_starts_as_that_map(model, linear):
    texts, vectors, _ = linear
    initialise(model, TOKENIZER, texts, vectors)
    tokens = TOKENIZER(texts[:8], return_tensors="pt", padding=True)
    embedded = model.shared(tokens["input_ids"])
    output = model.encoder(**tokens).last_hidden_state
    torch.testing.assert_close(output, embedded / embedded.square().mean(-1, keepdim=True).sqrt(), rtol=1e-4, atol=1e-4)


def test_noise_tells_upper_from_lower_case(model, linear):
    texts, vectors, _ = linear
    initialise(model, TOKENIZER, texts, vectors)
    low, high = model.shared.weight[TOKENIZER.convert_tokens_to_ids([f" {BOTH}", f" {BOTH.title()}"])]
    assert 0.9 < torch.cosine_similarity(low, high, 0) < 0.999


def test_a_piece_inside_a_word_is_a_continuation_and_some_have_none(encoder):
    given = ["ly", "Ing", " thes", " The", "the", ".", "<extra_id_0>", "<", " ", "é", "<0x41>"]
    pieces = {piece: n for n, piece in enumerate(given)}
    found = initial_weights._word_piece_ids(pieces, initial_weights.load_encoder()[0])
    expected = {"ly": ["##ly"], "Ing": ["##ing"], " The": ["the"], "the": ["the"], ".": ["."]}
    assert found == {pieces[piece]: [PIECES.index(each) for each in ids] for piece, ids in expected.items()}


@pytest.fixture
def copier(linear, tiny_config):
    """(a model of 128 components, 40 of which are the teacher's; 64 rows of 12 different tokens)"""
    tiny_config.vocab_size, tiny_config.d_model, tiny_config.d_kv = len(TOKENIZER), 128, 64
    model = T5ForConditionalGeneration(tiny_config)
    texts, vectors, _ = linear
    initialise(model, TOKENIZER, texts, vectors)
    return model, torch.stack([torch.randperm(1200)[:12] + 300 for _ in range(64)])


def test_the_decoder_starts_as_a_copier(copier):
    """It finds the next token where the one before occurs once; a decoder at random finds one of about 1,500."""
    model, signs = copier
    shifted = torch.cat([torch.zeros(64, 1, dtype=torch.long), signs[:, :-1]], 1)
    said = model(input_ids=signs, decoder_input_ids=shifted).logits.argmax(-1)
    assert (said == signs)[:, 1:].float().mean() > 0.8


def test_the_encoder_starts_with_what_the_copier_needs(copier):
    """In each output the code of a token, and a trace of the one before; before the first there is none yet."""
    model, signs = copier
    codes = model.shared.weight[signs, -64:]
    output = model.encoder(input_ids=signs).last_hidden_state[:, 1:, -64:]
    wanted = codes_with_traces(codes, model.shared.weight[0, -64:], 1)[:, 1:]
    assert torch.cosine_similarity(output.flatten(), wanted.flatten(), 0) > 0.98
    assert torch.cosine_similarity(output.flatten(), codes[:, 1:].flatten(), 0) < 0.9


def test_codes_are_what_one_head_can_copy():
    sizes = [(256, 64), (320, 64), (200, 64), (128, 64)]
    configs = [SimpleNamespace(d_model=width, d_kv=head) for width, head in sizes]
    assert [code_size(config, 192) for config in configs] == [64, 64, 8, 0]


def test_two_traces_are_enough_to_copy_repeated_tokens(copier):
    """Each token occurs twice, each time after another one."""
    model, signs = copier
    again = torch.arange(12).reshape(2, 6).T.flatten().flip(0)
    sources = torch.cat([signs, signs[:, again]], 1)
    shifted = torch.cat([torch.zeros(64, 1, dtype=torch.long), sources[:, :-1]], 1)
    right = []
    for traces in (1, 2):
        states = torch.zeros(*sources.shape, 128)
        states[..., -64:] = codes_with_traces(model.shared.weight[sources, -64:], model.shared.weight[0, -64:], traces)
        outputs = BaseModelOutput(last_hidden_state=states)
        said = model(encoder_outputs=outputs, decoder_input_ids=shifted).logits.argmax(-1)
        right.append((said == sources)[:, 1:].float().mean())
    assert right[0] < 0.6
    assert right[1] > 0.8
