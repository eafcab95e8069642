"""Texts to tokens, with what is lost on the way. Texts are tokenised again only if they or the tokenizer change."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.compute as pc
from datasets import Dataset

from seq2seq.data.cache import FORMAT, cached
from seq2seq.data.verbalizer import encode

ROWS = 4096  # that are tokenised at once
TOKENS = pyarrow.list_(pyarrow.int32())
SCHEMA = pyarrow.schema(
    {
        "input_ids": TOKENS,
        "labels": TOKENS,
        "source_tokens": pyarrow.int32(),
        "target_tokens": pyarrow.int32(),
        "source_unknown": pyarrow.int32(),
        "target_unknown": pyarrow.int32(),
    }
)


def tokenised(texts: Dataset, tokenizer, max_source: int, max_target: int) -> tuple[Dataset, str]:
    """Tokenise texts, or read their tokens from the cache.

    texts: the columns "source" and "target".
    max_source, max_target: the maximum number of tokens of each, with the end token.
    Returns the columns "input_ids" and "labels", the number of tokens before truncation ("source_tokens",
    "target_tokens") and of characters that the tokenizer does not know ("source_unknown", "target_unknown"); and a hash
    of all that they depend on: texts, content of the tokenizer and both limits.
    """
    fingerprint = content_hash(texts, tokenizer, max_source, max_target)

    def batches() -> Iterator[pyarrow.RecordBatch]:
        alphabet = Alphabet(tokenizer)
        table = texts.with_format("arrow")
        for start in range(0, len(texts), ROWS):
            part = table[start : start + ROWS]
            sources, targets = (part.column(name).combine_chunks() for name in ("source", "target"))
            pairs = [(sources, max_source), (targets, max_target)]
            encoded = [encode(column.to_pylist(), tokenizer) for column, _ in pairs]
            cut = [truncated(tokens, limit) for tokens, (_, limit) in zip(encoded, pairs, strict=True)]
            counts = [pyarrow.array(list(map(len, tokens)), pyarrow.int32()) for tokens in encoded]
            columns = [
                *(pyarrow.array(tokens, TOKENS) for tokens in cut),
                *counts,
                *map(alphabet.lost, (sources, targets)),
            ]
            yield pyarrow.record_batch(columns, schema=SCHEMA)

    return cached("tokens", fingerprint, lambda: (SCHEMA, batches()))[0], fingerprint


def truncated(tokens: list[list[int]], limit: int) -> list[list[int]]:
    """Return rows of tokens with at most `limit` each, of which the end token is kept."""
    return [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in tokens]


class Alphabet:
    """The characters that a tokenizer does not know, of those that it has met."""

    def __init__(self, tokenizer):
        self.tokenizer, self.met, self.unknown = tokenizer, set(), set()

    def lost(self, texts: pyarrow.Array) -> pyarrow.Array:
        """Return the number of unknown characters in each text."""
        new = sorted(set("".join(texts.to_pylist())) - self.met)
        self.met.update(new)
        self.unknown.update(character for character in new if self._is_unknown(character))
        if not self.unknown:
            return pyarrow.array([0] * len(texts), pyarrow.int32())
        return pc.count_substring_regex(texts, f"[{''.join(map(re.escape, sorted(self.unknown)))}]").cast(
            pyarrow.int32()
        )

    def _is_unknown(self, character: str) -> bool:
        if not self.tokenizer.is_fast:
            return self.tokenizer.unk_token_id in encode([character], self.tokenizer)[0]
        return self.tokenizer.unk_token_id in self.tokenizer.backend_tokenizer.encode(character).ids


def content_hash(texts: Dataset, tokenizer, *limits: int) -> str:
    """Return a hash of the texts, the tokenizer's content and the limits, which is the same in every process."""
    digest = hashlib.sha256(json.dumps([FORMAT, *limits]).encode())
    digest.update(tokenizer_content(tokenizer))
    digest.update(text_hash(texts, ["source", "target"]).encode())
    return digest.hexdigest()


def text_hash(texts: Dataset, columns: Sequence[str]) -> str:
    """Return a hash of columns of texts, or of lists of texts, which does not depend on how they lie in memory."""
    digest = hashlib.sha256()
    for start in range(0, len(texts), ROWS):
        part = texts.with_format("arrow")[start : start + ROWS]
        for name in columns:
            column = part.column(name).combine_chunks()
            while pyarrow.types.is_list(column.type):
                digest.update(pc.list_value_length(column).to_numpy(zero_copy_only=False).tobytes())
                column = column.flatten()
            digest.update(pc.binary_length(column).to_numpy(zero_copy_only=False).tobytes())
            digest.update("".join(column.to_pylist()).encode())
    return digest.hexdigest()


def tokenizer_content(tokenizer) -> bytes:
    """Return everything that determines how the tokenizer treats a text."""
    special = f"{type(tokenizer).__name__} {tokenizer.special_tokens_map}"
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()  # which the last call may have set, and the next one sets again
        backend.no_padding()
        return f"{special} {backend.to_str()}".encode()
    file = getattr(tokenizer, "vocab_file", None)
    return f"{special} {sorted(tokenizer.get_vocab().items())}".encode() + (Path(file).read_bytes() if file else b"")
