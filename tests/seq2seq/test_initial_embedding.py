"""The initial embedding of a backbone: the teacher's word pieces, rotated and scaled."""

import re
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seq2seq import pretraining
from seq2seq.data.vader import read_set
from seq2seq.pretraining import initialise_embedding, train_tokenizer
from third_party.models.t5 import T5ForConditionalGeneration

TOKENIZER = train_tokenizer([form for text in read_set("amazon")[0] for form in (text, text.title())], 1500)
WORDS = sorted({piece.strip().lower() for piece in TOKENIZER.get_vocab() if re.fullmatch(" [A-Za-z]{2,}", piece)})
BOTH = next(word for word in WORDS if {f" {word}", f" {word.title()}"} <= TOKENIZER.get_vocab().keys())
PIECES = ["[UNK]", *WORDS, "s", "##ly", "##ing"]


@pytest.fixture
def encoder(monkeypatch):
    """A teacher with word pieces of its own; returns its vectors, (pieces, 32)."""
    known = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    known.normalizer, known.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, unk_token="[UNK]")
    vectors = torch.nn.Embedding(len(PIECES), 32)
    model = SimpleNamespace(get_input_embeddings=lambda: vectors)
    monkeypatch.setattr(pretraining, "load_encoder", lambda: (tokenizer, model))
    return vectors.weight.detach()


@pytest.fixture
def model(tiny_config):
    tiny_config.vocab_size = len(TOKENIZER)
    return T5ForConditionalGeneration(tiny_config)


def test_pieces_have_the_geometry_of_the_teachers(encoder, model, monkeypatch):
    """With as many dimensions as the teacher has, only a rotation and a scale are between them."""
    monkeypatch.setattr(pretraining, "NOISE", 0.0)
    before = model.shared.weight.detach().clone()
    initialise_embedding(model, TOKENIZER)
    after = model.shared.weight.detach()
    ours = after[TOKENIZER.convert_tokens_to_ids([f" {word}" for word in WORDS if f" {word}" in TOKENIZER.get_vocab()])]
    theirs = encoder[[PIECES.index(word) for word in WORDS if f" {word}" in TOKENIZER.get_vocab()]]
    scale = torch.pdist(ours) / torch.pdist(theirs)
    assert len(ours) > 100
    torch.testing.assert_close(scale, scale.mean().expand_as(scale), rtol=1e-3, atol=0)
    low, high = after[TOKENIZER.convert_tokens_to_ids([f" {BOTH}", f" {BOTH.title()}"])]
    torch.testing.assert_close(low, high)
    sentinels = TOKENIZER.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100)])
    assert torch.equal(after[sentinels], before[sentinels])


def test_noise_tells_upper_from_lower_case(encoder, model):
    initialise_embedding(model, TOKENIZER)
    low, high = model.shared.weight[TOKENIZER.convert_tokens_to_ids([f" {BOTH}", f" {BOTH.title()}"])]
    assert 0.7 < torch.cosine_similarity(low, high, 0) < 0.99
    known = TOKENIZER.convert_tokens_to_ids([f" {word}" for word in WORDS if f" {word}" in TOKENIZER.get_vocab()])
    assert model.shared.weight[known].std().item() == pytest.approx(1, abs=0.2)


def test_a_piece_inside_a_word_is_a_continuation_and_some_have_none(encoder):
    given = ["ly", "Ing", " thes", " The", "the", "<extra_id_0>", "<", " ", "é", "<0x41>"]
    pieces = {piece: n for n, piece in enumerate(given)}
    found = pretraining._word_piece_ids(pieces, pretraining.load_encoder()[0])
    expected = {"ly": ["##ly"], "Ing": ["##ing"], " The": ["the"], "the": ["the"]}
    assert found == {pieces[piece]: [PIECES.index(each) for each in ids] for piece, ids in expected.items()}
