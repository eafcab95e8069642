"""Initial weights of a backbone that is trained from scratch: what a closed form gives need not be learned."""

from collections.abc import Sequence

import numpy as np
import torch

from seq2seq.sentence_encoder import WordVectors, load_encoder, word_numbers

NOISE = 0.01  # share of an initial embedding's variance
RIDGE = 1e-3  # of the least-squares fit, relative to the mean square of what describes a piece
BATCH = 256  # texts
BEFORE = 8.0  # the bias by which the heads that write traces prefer the token before
TRACE = 0.7  # the size of what they write, beside the token's own embedding
SHARPNESS = 0.3  # of the attention of the head that finds them
LOUDNESS = 6.0  # of what it writes, beside the embedding of the token that was read


@torch.no_grad()
def initialise(model, tokenizer, texts: Sequence[str], vectors: WordVectors) -> None:
    """Let the encoder start as the best linear map from word pieces to the teacher's vectors, the decoder as a copier.

    texts: the sentences that the map is fitted to, by least squares over their tokens.
    vectors: the vectors of their words; the first d_model components are used.
    What blocks write into the hidden state is zero, but for the three heads of `_copy`.
    """
    size = min(model.config.d_model, vectors.size)
    _embed(model, tokenizer, texts, vectors, size)
    for block in (*model.encoder.block, *model.decoder.block):
        for layer in block.layer[:-1]:
            attention = getattr(layer, "SelfAttention", None) or layer.EncDecAttention
            attention.o.weight.zero_()
        block.layer[-1].DenseReluDense.wo.weight.zero_()
    _copy(model, code_size(model.config, vectors.size))


def code_size(config, teacher: int) -> int:
    """Return how many components, the last of a hidden state, tell tokens apart, so that a head can copy them.

    teacher: the size of the teacher's vectors, which are the first components.
    """
    return min(config.d_kv, max(config.d_model - teacher, 0))


def _embed(model, tokenizer, texts: Sequence[str], vectors: WordVectors, size: int) -> None:
    """Set the first `size` components of the embeddings of all pieces that have word pieces.

    A piece is described by the mean embedding of its word pieces, and gets the vector that this is mapped to, scaled to
    a mean square of 1. A hundredth of the variance is noise: the teacher does not know case, so "the" and "The" would
    be one vector.
    """
    described = _descriptions(tokenizer)
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


def _copy(model, size: int) -> None:
    """Let three heads be an induction head (Olsson et al. 2022, https://arxiv.org/abs/2209.11895).

    The last `size` components of an embedding are random, and tell tokens apart. The first head of the encoder, and of
    the decoder's self-attention, adds those of the token before, shifted by one: its trace. The first head of the
    decoder's cross-attention finds the place where the token before is the one that has just been read, and writes the
    components of the token there. Where tokens of the source have traces of two tokens before them, it prefers the
    place where both agree, and so copies repeated tokens as well.
    """
    if size == 0:
        return
    own, head = slice(model.config.d_model - size, None), slice(0, size)
    identity = torch.eye(size)
    shift = identity.roll(1, 0)
    first = model.decoder.block[0].layer
    traces, found = (model.encoder.block[0].layer[0].SelfAttention, first[0].SelfAttention), first[1].EncDecAttention
    for attention in (*traces, found):
        for linear in (attention.q, attention.k, attention.v):
            linear.weight[: model.config.d_kv] = 0
        attention.v.weight[head, own] = identity
    for attention in traces:
        attention.relative_attention_bias.weight[:, 0] = 0
        attention.relative_attention_bias.weight[1, 0] = BEFORE
        attention.o.weight[own, head] = TRACE * shift
    found.q.weight[head, own] = SHARPNESS * identity
    found.k.weight[head, own] = shift.T
    found.o.weight[own, head] = LOUDNESS * identity


def codes_with_traces(codes: torch.Tensor, start: torch.Tensor, traces: int) -> torch.Tensor:
    """Return what the copying head of the decoder needs of each token, (.., length, size).

    codes: the last components of the embeddings of a sequence, (.., length, size).
    start: those of the token that decoders start with, which counts as the ones before the first, (size,).
    traces: how many of the tokens before have a trace; that of the n-th is shifted by n.
    """
    result, before = codes, codes
    for distance in range(1, traces + 1):
        before = torch.cat([start.expand_as(codes[..., :1, :]), before[..., :-1, :]], -2)
        result = result + TRACE * before.roll(distance, -1)
    return result


def _descriptions(tokenizer) -> torch.Tensor:
    """Return for each piece the mean embedding of its word pieces, and a 1; zeros if it has none: (pieces, 769)."""
    encoder_tokenizer, encoder = load_encoder(torch.float32)
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
        if not piece.startswith(" ") and text.isalnum() and f"##{text}" in known:  # the teacher splits signs off
            result[number] = [known[f"##{text}"]]
        elif text and (len(text) == 1 or not text.startswith("<")):
            others[number] = text
    found = encoder_tokenizer(list(others.values()), add_special_tokens=False)["input_ids"]
    for number, ids in zip(others, found, strict=True):
        result[number] = [each for each in ids if each != encoder_tokenizer.unk_token_id]
    return {number: ids for number, ids in result.items() if ids}
