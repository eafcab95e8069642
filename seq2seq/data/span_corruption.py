"""Span corruption, T5's pre-training task (Raffel et al. 2020, https://arxiv.org/abs/1910.10683)."""

import torch
from datasets import Dataset

from seq2seq.data.splits import normalise, split_by_text
from seq2seq.data.tasks import SPLITS, Task, register
from seq2seq.data.vader import FILES, read_set

NOISE_DENSITY = 0.15
MEAN_SPAN = 3.0


class SpanCorruption(Task):
    """Fill the holes of a sentence. Holes are cut by the collator, anew for each batch; the loss is the only score.

    Text: the sentences of all rated sets, without their ratings; of the training split those that occur in no
    validation or test split of any set.
    """

    name = "span-corruption"
    metrics = ()
    named_in_source = False  # what is pre-trained is to read plain text

    def load(self, split: str) -> Dataset:
        return Dataset.from_dict({"sentence": [text for texts in unlabelled_text(split).values() for text in texts]})

    def format(self, row: dict) -> tuple[str, str]:
        return row["sentence"], ""

    def collator(self, tokenizer, model):
        return SpanCorruptionCollator(tokenizer)


def unlabelled_text(split: str) -> dict[str, list[str]]:
    """The sentences of a split of each rated set; for "train" without those that any set holds out."""
    parts, held_out = {}, set()
    for set_name in FILES:
        sentences, _ = read_set(set_name)
        for part, rows in zip(SPLITS, split_by_text(sentences), strict=True):
            texts = [sentences[r] for r in rows]
            if part == split:
                parts[set_name] = texts
            if part != "train":
                held_out.update(map(normalise, texts))
    if split != "train":
        return parts
    return {name: [text for text in texts if normalise(text) not in held_out] for name, texts in parts.items()}


class SpanCorruptionCollator:
    """Rows with "input_ids" (a tokenised sentence with its end token) to a batch of corrupted inputs and their holes.

    Returns input_ids and attention_mask (batch, length) and labels (batch, length), padded with -100.
    """

    def __init__(self, tokenizer):
        self.pad = tokenizer.pad_token_id
        self.end = tokenizer.eos_token_id
        sentinels = [token for token in tokenizer.get_vocab() if token.startswith("<extra_id_")]
        sentinels.sort(key=lambda token: int(token[len("<extra_id_") : -1]))
        self.sentinels = tokenizer.convert_tokens_to_ids(sentinels)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        pairs = [self.pair(row) for row in rows]
        inputs = _pad([source for source, _ in pairs], self.pad)
        attention = _pad([[1] * len(source) for source, _ in pairs], 0)
        return {"input_ids": inputs, "attention_mask": attention, "labels": _pad([t for _, t in pairs], -100)}

    def pair(self, row: dict) -> tuple[list[int], list[int]]:
        """(source, target) tokens of one row."""
        return self.corrupt(row["input_ids"][:-1])

    def corrupt(self, tokens: list[int]) -> tuple[list[int], list[int]]:
        """(tokens with a sentinel for each hole, sentinels each followed by its hole); both with an end token."""
        source, target = [], []
        for number, (start, stop, end) in enumerate(random_spans(len(tokens), len(self.sentinels) - 1)):
            sentinel = self.sentinels[number]
            source += [*tokens[start:stop], sentinel]
            target += [sentinel, *tokens[stop:end]]
        return [*source, self.end], [*target, self.sentinels[number + 1], self.end]


def random_spans(length: int, most: int) -> list[tuple[int, int, int]]:
    """(start of a kept run, its end and start of a hole, end of the hole), one after the other, covering 0 .. length.

    About 15% of the positions lie in holes of mean length 3: at least one position, in at most `most` holes.
    """
    noise = min(max(round(length * NOISE_DENSITY), 1), length)
    spans = min(max(round(noise / MEAN_SPAN), 1), most, max(length - noise, 1))
    kept, holes = _partition(length - noise, spans), _partition(noise, spans)
    result, start = [], 0
    for keep, hole in zip(kept, holes, strict=True):
        result.append((start, start + keep, start + keep + hole))
        start += keep + hole
    return result


def _partition(total: int, parts: int) -> list[int]:
    """`total` as a sum of `parts` whole numbers, each at least 1 (unless total is 0), all such sums equally likely."""
    if total < parts:
        return [total]
    cuts = sorted((torch.randperm(total - 1)[: parts - 1] + 1).tolist())
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]


def _pad(rows: list[list[int]], value: int) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [value] * (longest - len(row)) for row in rows])


register(SpanCorruption.name, SpanCorruption)
