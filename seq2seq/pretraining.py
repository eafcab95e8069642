"""A tokenizer and an initial embedding for a backbone that is trained from scratch."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import sentencepiece
import torch
from transformers import T5Tokenizer

from common.errors import ConfigError, one_line
from seq2seq.sentence_encoder import load_encoder


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> T5Tokenizer:
    """Train a T5 tokenizer (unigram pieces, then 100 sentinels): lower case, each digit a piece of its own.

    vocab_size: the number of pieces. Raises ConfigError if `texts` are too few for it.
    """
    settings = {"model_type": "unigram", "normalization_rule_name": "nmt_nfkc_cf", "split_digits": True}
    special = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
    with tempfile.TemporaryDirectory() as directory:
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(texts),
                model_prefix=str(Path(directory, "spiece")),
                vocab_size=vocab_size,
                minloglevel=2,
                **settings,
                **special,
            )
        except RuntimeError as error:  # "Vocabulary size too high (8000). Please set it to a value <= 2875."
            raise ConfigError(f"tokenizer_vocab_size is {vocab_size}: {one_line(error)}") from None
        return T5Tokenizer.from_pretrained(directory)


@torch.no_grad()
def initialise_embedding(model, tokenizer) -> None:
    """Initialise the embedding of `model` from the word-piece vectors of all-MiniLM-L6-v2 (Apache-2.0).

    Each piece gets the mean vector of its word pieces; the vectors are centred, projected onto their first d_model
    principal directions, and scaled to T5's initial standard deviation of 1. Sentinels, and pieces without a vector,
    keep their random values.
    """
    encoder_tokenizer, encoder = load_encoder()
    vectors = encoder.get_input_embeddings().weight

    numbers, rows = [], []
    for piece, number in tokenizer.get_vocab().items():
        ids = _word_piece_ids(piece, encoder_tokenizer)
        if ids:
            numbers.append(number)
            rows.append(vectors[ids].mean(0))
    known = torch.stack(rows)
    known = known - known.mean(0)
    _, _, directions = torch.linalg.svd(known, full_matrices=False)
    projected = known @ directions[: model.config.d_model].T
    model.shared.weight[numbers] = projected / projected.std()


def _word_piece_ids(piece: str, word_pieces) -> list[int]:
    """Return the word pieces of a SentencePiece piece; one inside a word is first looked up as a continuation."""
    text = piece.replace("▁", "")
    if not text or piece.startswith("<"):
        return []
    if not piece.startswith("▁") and f"##{text}" in word_pieces.get_vocab():
        return [word_pieces.convert_tokens_to_ids(f"##{text}")]
    return [i for i in word_pieces(text, add_special_tokens=False)["input_ids"] if i != word_pieces.unk_token_id]
