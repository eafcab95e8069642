"""A tokenizer and initial weights for a backbone that is trained from scratch."""

import io
import string
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import AddedToken, Regex, Tokenizer, decoders
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from common.errors import ConfigError, one_line
from seq2seq.sentence_encoder import WordVectors, load_encoder, word_numbers

SENTINELS = 100
NOISE = 0.01  # share of an initial embedding's variance
RIDGE = 1e-3  # of the least-squares fit, relative to the mean square of what describes a piece
BATCH = 256  # texts
PRINTABLE = string.digits + string.ascii_letters + string.punctuation + " "
LEAST = 3 + 256 + len(PRINTABLE)  # pieces: padding, end and unknown; the bytes; what can be printed
UNITS = r" ?\p{L}+|\p{N}|\s| ?[^\s\p{L}\p{N}]"  # a word, a digit, a space or a sign: no piece holds two of them


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a tokenizer of unigram pieces (Kudo 2018, https://arxiv.org/abs/1804.10959), then 100 sentinels.

    vocab_size: the number of pieces, with 256 that stand for a byte each.
    Every string is decoded to itself: case and spaces are kept, what no piece covers becomes bytes, and what looks like
    a special token is text, unless it is called with split_special_tokens=False. Each digit is a token.
    Raises ConfigError if it is below LEAST, or `texts` are too few for it.
    """
    if vocab_size < LEAST:
        raise ConfigError(
            f"tokenizer_vocab_size is {vocab_size}; it must be at least {LEAST}: bytes and printable characters"
        )
    model = io.BytesIO()
    settings = {"model_type": "unigram", "normalization_rule_name": "identity", "byte_fallback": True}
    spaces = {"remove_extra_whitespaces": False, "add_dummy_prefix": False}
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    try:
        SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            split_digits=True,
            required_chars=PRINTABLE.strip(),
            minloglevel=2,
            **settings,
            **spaces,
            **special,
        )
    except RuntimeError as error:  # "Vocabulary size too high (8000). Please set it to a value <= 2875."
        raise ConfigError(f"tokenizer_vocab_size is {vocab_size}: {one_line(error)}") from None
    return _fast_tokenizer(SentencePieceProcessor(model_proto=model.getvalue()))


def _fast_tokenizer(pieces: SentencePieceProcessor) -> PreTrainedTokenizerFast:
    """Return the tokenizer with these pieces, in which a space is a space and not U+2581, which is a character too."""
    scored = [(pieces.id_to_piece(n).replace("\u2581", " "), pieces.get_score(n)) for n in range(len(pieces))]
    sentinels = [f"<extra_id_{n}>" for n in range(SENTINELS)]
    scored += [(sentinel, 0.0) for sentinel in sentinels]
    tokenizer = Tokenizer(Unigram(scored, unk_id=pieces.unk_id(), byte_fallback=True))
    tokenizer.pre_tokenizer = Split(Regex(UNITS), "isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    end = pieces.id_to_piece(pieces.eos_id())
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, pieces.eos_id())]
    )
    special = [scored[n][0] for n in (pieces.pad_id(), pieces.eos_id(), pieces.unk_id())]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special + sentinels])
    names = dict(zip(("pad_token", "eos_token", "unk_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, split_special_tokens=True, **names)


@torch.no_grad()
def initialise_encoder(model, tokenizer, texts: Sequence[str], vectors: WordVectors) -> None:
    """Let the encoder start as the best linear map from the teacher's word pieces to its vectors of words.

    texts: the sentences that the map is fitted to, by least squares over their tokens.
    vectors: the vectors of their words; the first d_model components are used.
    A piece is described by the mean embedding of its word pieces, and gets the vector that this is mapped to, scaled to
    a mean square of 1. A hundredth of the variance is noise: the teacher does not know case, so "the" and "The" would
    be one vector. Sentinels, and pieces without word pieces, keep their random values. The blocks of the encoder start
    as identities: what they write into the hidden state is zero.
    """
    described = _descriptions(tokenizer)
    size = min(model.config.d_model, vectors.size)
    products, targets = torch.zeros(described.shape[1], described.shape[1]), torch.zeros(described.shape[1], size)
    for start in range(0, len(texts), BATCH):
        tokens, wanted = _tokens_and_vectors(tokenizer, texts[start : start + BATCH], start, vectors)
        products += described[tokens].T @ described[tokens]
        targets += described[tokens].T @ wanted[:, :size]
    ridge = RIDGE * products.diagonal().mean() * torch.eye(len(products))
    learned = described @ torch.linalg.solve(products + ridge, targets)
    known = described[:, -1] > 0
    learned = learned / learned[known].square().mean().sqrt()
    noise = model.shared.weight[known, :size]
    model.shared.weight[known, :size] = NOISE**0.5 * noise + (1 - NOISE) ** 0.5 * learned[known]
    for block in model.encoder.block:
        block.layer[0].SelfAttention.o.weight.zero_()
        block.layer[1].DenseReluDense.wo.weight.zero_()


def _descriptions(tokenizer) -> torch.Tensor:
    """Return for each piece the mean embedding of its word pieces, and a 1; zeros if it has none: (pieces, 385)."""
    encoder_tokenizer, encoder = load_encoder()
    embedding = encoder.get_input_embeddings().weight
    result = torch.zeros(len(tokenizer), embedding.shape[1] + 1)
    for number, ids in _word_piece_ids(tokenizer.get_vocab(), encoder_tokenizer).items():
        result[number, :-1] = embedding[ids].mean(0)
        result[number, -1] = 1
    return result


def _tokens_and_vectors(tokenizer, texts: Sequence[str], first: int, vectors: WordVectors) -> tuple[list, torch.Tensor]:
    """Return the tokens that are in words, and the vector of the word of each. first: the number of the first text."""
    batch = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True)
    tokens, rows = [], []
    for place, text in enumerate(texts):
        offsets = np.array(batch["offset_mapping"][place]).reshape(-1, 2)
        words = word_numbers(text, offsets)
        tokens += np.array(batch["input_ids"][place], dtype=int)[words >= 0].tolist()
        rows.append(vectors[first + place][words[words >= 0]])
    return tokens, torch.from_numpy(np.concatenate(rows)).float()


def _word_piece_ids(pieces: dict[str, int], encoder_tokenizer) -> dict[int, list[int]]:
    """Return the word pieces of each SentencePiece piece that has any, by its number.

    A piece inside a word is first looked up as a continuation.
    """
    known, result, others = encoder_tokenizer.get_vocab(), {}, {}
    for piece, number in pieces.items():
        text = piece.strip().lower()
        if not piece.startswith(" ") and f"##{text}" in known:
            result[number] = [known[f"##{text}"]]
        elif text and (len(text) == 1 or not text.startswith("<")):
            others[number] = text
    found = encoder_tokenizer(list(others.values()), add_special_tokens=False)["input_ids"]
    for number, ids in zip(others, found, strict=True):
        result[number] = [each for each in ids if each != encoder_tokenizer.unk_token_id]
    return {number: ids for number, ids in result.items() if ids}
