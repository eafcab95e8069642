"""Span corruption, T5's pre-training task (Raffel et al. 2020, https://arxiv.org/abs/1910.10683)."""

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from datasets import Dataset

from seq2seq.data.tasks import Task, register
from seq2seq.data.unlabelled import RATED, check_sources, unlabelled_text

NOISE_DENSITY = 0.15
MEAN_SPAN = 3.0


class SpanCorruption(Task):
    """Fill in the masked spans of a sentence, masked afresh for each batch by the collator. The loss is the only score.

    Text: `unlabelled_text` of the key text_sources.
    """

    name = "span-corruption"
    metrics = ()
    named_in_source = False  # pre-training uses plain text

    def __init__(self, *given):
        super().__init__(*given)
        self.sources = {RATED: 1} if self.arguments.text_sources is None else self.arguments.text_sources
        check_sources(self.sources)

    def load(self, split: str) -> Dataset:
        texts = unlabelled_text(split, self.sources)
        often = {name: self.sources.get(name, self.sources.get(RATED, 1)) if split == "train" else 1 for name in texts}
        return Dataset.from_dict({"sentence": [text for name in texts for text in often[name] * texts[name]]})

    def source(self, row: Mapping) -> str:
        return row["sentence"]

    def target(self, row: Mapping) -> str:
        return ""

    def collator(self, tokenizer, model):
        return SpanCorruptionCollator(tokenizer)


class SpanCorruptionCollator:
    """Makes a batch of corrupted sentences, with their masked spans as targets.

    What is drawn at random depends on the rows of the batch only, so a resumed run draws the same. A row has
    "input_ids", a tokenised sentence with its end token. A batch has input_ids, attention_mask and labels, each
    (batch, length), the labels padded with -100.
    """

    def __init__(self, tokenizer):
        self.pad = tokenizer.pad_token_id
        self.end = tokenizer.eos_token_id
        sentinels = [token for token in tokenizer.get_vocab() if token.startswith("<extra_id_")]
        sentinels.sort(key=lambda token: int(token[len("<extra_id_") : -1]))
        self.sentinels = tokenizer.convert_tokens_to_ids(sentinels)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        with seeded_by(rows):
            return self.collate(rows)

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return self.batch([self.corrupt(row["input_ids"][:-1]) for row in rows])

    def batch(self, pairs: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        """Return the batch of pairs (source, target) of tokens."""
        inputs = padded([source for source, _ in pairs], self.pad)
        attention = padded([[1] * len(source) for source, _ in pairs], 0)
        return {"input_ids": inputs, "attention_mask": attention, "labels": padded([t for _, t in pairs], -100)}

    def corrupt(self, tokens: list[int]) -> tuple[list[int], list[int]]:
        """Return (tokens with a sentinel for each span, each sentinel followed by its span), both with an end token."""
        source, target = [], []
        for number, (start, span, end) in enumerate(random_spans(len(tokens), len(self.sentinels) - 1)):
            sentinel = self.sentinels[number]
            source += [*tokens[start:span], sentinel]
            target += [sentinel, *tokens[span:end]]
        return [*source, self.end], [*target, self.sentinels[number + 1], self.end]


@contextmanager
def seeded_by(rows: list[dict]) -> Iterator[None]:
    """Let torch draw what these rows alone determine; afterwards its generator is where it was."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(zlib.crc32(repr([row["input_ids"] for row in rows]).encode()))
    try:
        yield
    finally:
        torch.set_rng_state(before)


def random_spans(length: int, most: int) -> list[tuple[int, int, int]]:
    """Return triples (start of unmasked tokens, start of the masked span after them, its end) that cover 0 .. length.

    About 15% of the positions, at least one, are masked, in at most `most` spans of mean length 3.
    """
    noise = min(max(round(length * NOISE_DENSITY), 1), length)
    spans = min(max(round(noise / MEAN_SPAN), 1), most, max(length - noise, 1))
    result, start = [], 0
    for kept, masked in zip(_partition(length - noise, spans), _partition(noise, spans), strict=True):
        result.append((start, start + kept, start + kept + masked))
        start += kept + masked
    return result


def _partition(total: int, parts: int) -> list[int]:
    """Split `total` at random into `parts` whole numbers, each at least 1; all such splits are equally likely.

    A total that is too small is returned as the only part.
    """
    if total < parts:
        return [total]
    cuts = sorted((torch.randperm(total - 1)[: parts - 1] + 1).tolist())
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def padded(rows: list[list[int]], value: int) -> torch.Tensor:
    """Return the rows as one tensor, (rows, longest), filled up with the value."""
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


register(SpanCorruption.name, SpanCorruption)
