"""A cache of tokens on disk: texts are tokenised again only if they or the tokenizer change."""

import hashlib
import json
import os
from pathlib import Path

from datasets import Dataset

from common.checksums import sha256_of
from common.errors import warn_once
from seq2seq.downloads import cache_directory

FORMAT = "1"  # increase this when `tokenised` writes other columns


def tokenised(texts: Dataset, tokenizer, max_source: int, max_target: int) -> tuple[Dataset, str]:
    """Tokenise texts, or read their tokens from `cache_directory()/tokens`.

    texts: the columns "source" and "target".
    max_source, max_target: the maximum number of tokens of each.
    Returns the columns "input_ids" and "labels", and a hash of all that they depend on: texts, content of the
    tokenizer and both limits.
    """

    def encode(batch: dict) -> dict:
        sources = tokenizer(batch["source"], max_length=max_source, truncation=True)
        targets = tokenizer(batch["target"], max_length=max_target, truncation=True)
        return {"input_ids": sources["input_ids"], "labels": targets["input_ids"]}

    fingerprint = content_hash(texts, tokenizer, max_source, max_target)
    directory = cache_directory() / "tokens"
    options = {
        "batched": True,
        "remove_columns": ["source", "target"],
        "desc": "tokens",
        "new_fingerprint": fingerprint,
        "load_from_cache_file": False,
    }
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tokens = _cached(directory, fingerprint)
        if tokens is None:
            unfinished = directory / f".{os.getpid()}-{fingerprint}.arrow"
            texts.map(encode, cache_file_name=str(unfinished), **options)
            file = directory / f"{fingerprint}-{sha256_of(unfinished)}.arrow"
            tokens = Dataset.from_file(str(unfinished.replace(file)))
        return tokens, fingerprint
    except OSError as error:
        warn_once(f"tokens are not cached in {directory}: {error.strerror or error}")
        return texts.map(encode, **options), fingerprint


def _cached(directory: Path, fingerprint: str) -> Dataset | None:
    """Return the cached tokens, from a file whose name ends with the SHA-256 of its content; remove damaged files."""
    for file in directory.glob(f"{fingerprint}-*.arrow"):
        if file.stem.rpartition("-")[2] == sha256_of(file):
            return Dataset.from_file(str(file))
        file.unlink(missing_ok=True)
    return None


def content_hash(texts: Dataset, tokenizer, *limits: int) -> str:
    """Return a hash of the texts, the tokenizer's content and the limits, which is the same in every process."""
    digest = hashlib.sha256(json.dumps([FORMAT, *limits]).encode())
    digest.update(tokenizer_content(tokenizer))
    for column in ("source", "target"):
        for text in texts[column]:
            encoded = text.encode()
            digest.update(b"%d:" % len(encoded))
            digest.update(encoded)
    return digest.hexdigest()


def tokenizer_content(tokenizer) -> bytes:
    """Return everything that determines how the tokenizer treats a text."""
    special = [type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), str(tokenizer.special_tokens_map)]
    if tokenizer.is_fast:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        backend |= {"truncation": None, "padding": None}  # set by the tokenizer's last call
    else:
        file = getattr(tokenizer, "vocab_file", None)
        backend = hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else None
    return json.dumps([special, backend]).encode()
