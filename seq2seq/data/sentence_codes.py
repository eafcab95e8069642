"""Span corruption mixed with distillation: half of the sentences have holes, of the others the model writes a code.

Filling holes needs only the words beside them; the code teaches a small decoder to read a whole sentence. It says, for
each of the first principal components of what a sentence encoder makes of the training sentences, on which side of the
median the sentence falls. No rating is used.
"""

from functools import cache

import torch
from datasets import Dataset

from seq2seq.data.span_corruption import SpanCorruption, SpanCorruptionCollator, unlabelled_text
from seq2seq.data.tasks import register
from seq2seq.sentence_encoder import embed

COMPONENTS = 16


class SentenceCodes(SpanCorruption):
    """Source "sentence: ..", target the holes of the sentence or its code, by the toss of a coin."""

    name = "span-corruption+codes"

    def load(self, split: str, seed: int, data_dir: str | None) -> Dataset:
        directions, medians = principal_components()
        sentences, codes = [], []
        for name, texts in unlabelled_text(split).items():
            vectors = sentence_vectors(split)[name] - sentence_vectors("train")[name].mean(0)
            bits = (vectors @ directions > medians).int().tolist()
            sentences += texts
            codes += ["".join(map(str, row)) for row in bits]
        return Dataset.from_dict({"sentence": sentences, "code": codes})

    def format(self, row: dict) -> tuple[str, str]:
        return f"sentence: {row['sentence']}", row["code"]

    def collator(self, tokenizer, model):
        return SentenceCodesCollator(tokenizer)


@cache
def sentence_vectors(split: str) -> dict[str, torch.Tensor]:
    """Set name -> (sentences, 384): what the encoder makes of each sentence of a split."""
    return {name: embed(texts) for name, texts in unlabelled_text(split).items()}


def principal_components() -> tuple[torch.Tensor, torch.Tensor]:
    """(directions (384, COMPONENTS), medians (COMPONENTS,)) of the training vectors, each set's own mean removed."""
    centred = torch.cat([vectors - vectors.mean(0) for vectors in sentence_vectors("train").values()])
    directions = torch.linalg.svd(centred, full_matrices=False).Vh[:COMPONENTS].T
    return directions, (centred @ directions).median(0).values


class SentenceCodesCollator(SpanCorruptionCollator):
    """Leaves every other row, by chance, whole; the target is its code, a sentinel before each digit but the first.

    The first digit is written as the text "0" or "1" is: the model learns to answer about a sentence with a digit.
    """

    def __init__(self, tokenizer):
        super().__init__(tokenizer)
        self.digits = set(tokenizer.convert_tokens_to_ids(["0", "1"]))

    def pair(self, row: dict) -> tuple[list[int], list[int]]:
        if torch.rand(()) < 0.5:
            return super().pair(row)
        code = [token for token in row["labels"] if token in self.digits]
        markers = [row["labels"][0], *self.sentinels[1 : len(code)]]
        target = [token for pair in zip(markers, code, strict=True) for token in pair]
        return row["input_ids"], [*target, self.end]


register(SentenceCodes())
