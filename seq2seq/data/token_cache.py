"""A cache of tokens on disk: texts are tokenised again only if they or the tokenizer change."""

import hashlib
import json
from pathlib import Path

from datasets import Dataset
from pyarrow import ArrowInvalid

from common.errors import warn_once
from seq2seq.data.downloads import cache_directory

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
    file = cache_directory() / "tokens" / f"{fingerprint}.arrow"
    options = {
        "batched": True,
        "remove_columns": ["source", "target"],
        "desc": "tokens",
        "new_fingerprint": fingerprint,
    }
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        _remove_if_damaged(file, len(texts))
        return texts.map(encode, cache_file_name=str(file), load_from_cache_file=True, **options), fingerprint
    except OSError as error:
        warn_once(f"tokens are not cached in {file.parent}: {error.strerror or error}")
        return texts.map(encode, load_from_cache_file=False, **options), fingerprint


def _remove_if_damaged(file: Path, rows: int) -> None:
    """Remove a cached file unless it can be read and has the right number of rows."""
    if file.exists():
        try:
            whole = len(Dataset.from_file(str(file))) == rows
        except (ArrowInvalid, OSError, ValueError):
            whole = False
        if not whole:
            file.unlink(missing_ok=True)


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
