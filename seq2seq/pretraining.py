"""A tokenizer for a backbone that is trained from scratch."""

import io
import string
from collections.abc import Iterable

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer
from tokenizers import AddedToken, Regex, Tokenizer, decoders
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from common.errors import ConfigError, one_line

SENTINELS = 100
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
