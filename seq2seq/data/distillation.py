"""Span corruption mixed with distillation from a sentence encoder. No ratings are used.

Filling in masked spans needs only the neighbouring words; on so little text it teaches nothing that an adapter can use.
That comes from all-MiniLM-L6-v2: the mean of our encoder's output is trained towards its vector of the sentence, and
the decoder answers questions about that vector ("is principal component k above the mean?") with a digit.
"""

from functools import cache

import torch
from datasets import Dataset
from torch.nn.functional import cosine_similarity

from seq2seq import sentence_encoder  # not its functions: it imports this package
from seq2seq.data.span_corruption import SpanCorruption, SpanCorruptionCollator, unlabelled_text
from seq2seq.data.tasks import register

CORRUPTED = 1 / 3  # share of sentences with masked spans; the rest are asked about
QUESTIONS = 32  # number of principal components that questions may be about
ASKED = 9  # questions per sentence


class Distillation(SpanCorruption):
    """Source: "sentence: .."; target, at random: its masked spans or answers to questions."""

    name = "span-corruption+distillation"
    extra_fields = ("vector",)

    def load(self, split: str) -> Dataset:
        means, directions = training_statistics()
        texts, vectors = [], []
        for name, encoded in sentence_vectors(split).items():
            texts += unlabelled_text(split)[name]
            vectors.append((encoded - means[name]) @ directions)
        return Dataset.from_dict({"sentence": texts, "vector": torch.cat(vectors).numpy()})

    def format(self, row: dict) -> tuple[str, str]:
        return f"sentence: {row['sentence']}", ""

    def collator(self, tokenizer, model):
        return DistillationCollator(tokenizer, model)

    def auxiliary_loss(self, outputs, batch: dict, fields: dict) -> torch.Tensor:
        """Return 1 - cosine similarity of the encoder's mean output and the first components of the sentence vector."""
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (outputs.encoder_last_hidden_state * mask).sum(1) / mask.sum(1)
        size = min(mean.shape[-1], fields["vector"].shape[-1])
        return 1 - cosine_similarity(mean[:, :size].float(), fields["vector"][:, :size]).mean()


@cache
def sentence_vectors(split: str) -> dict[str, torch.Tensor]:
    """Return set name -> the encoder's vectors of a split, (sentences, 384)."""
    return {name: sentence_encoder.embed(texts) for name, texts in unlabelled_text(split).items()}


def training_statistics() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return each set's mean training vector, and the principal directions (384, 384) of the centred vectors."""
    vectors = sentence_vectors("train")
    means = {name: rows.mean(0) for name, rows in vectors.items()}
    centred = torch.cat([rows - means[name] for name, rows in vectors.items()])
    return means, torch.linalg.svd(centred, full_matrices=False).Vh.T


class DistillationCollator(SpanCorruptionCollator):
    """Leaves a random two thirds of the rows uncorrupted; their targets alternate between questions and answers.

    Questions are the last sentinels, answers the digits 0 and 1. Questions are not predicted: their labels are -100.
    """

    def __init__(self, tokenizer, model):
        super().__init__(tokenizer)
        self.model = model
        self.digits = tokenizer.convert_tokens_to_ids(["0", "1"])
        self.sentinels, self.questions = self.sentinels[:-QUESTIONS], self.sentinels[-QUESTIONS:]

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        batch = super().__call__(rows)
        labels = batch["labels"]
        batch["vector"] = torch.tensor([row["vector"] for row in rows])
        batch["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels)
        batch["labels"] = labels.masked_fill(torch.isin(labels, torch.tensor(self.questions)), -100)
        return batch

    def pair(self, row: dict) -> tuple[list[int], list[int]]:
        if torch.rand(()) < CORRUPTED:
            return super().pair(row)
        target = []
        for k in torch.randperm(QUESTIONS)[:ASKED].tolist():
            target += [self.questions[k], self.digits[row["vector"][k] > 0]]
        return row["input_ids"], [*target, self.end]


register(Distillation.name, Distillation)
