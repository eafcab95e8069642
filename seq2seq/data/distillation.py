"""Span corruption mixed with distillation from a sentence encoder. No rating is used.

Filling holes needs only the words beside them; on so little text it teaches nothing that an adapter can use. That comes
from all-MiniLM-L6-v2: the mean of our encoder's output follows its vector of the sentence, and the decoder answers
questions about that vector, "on which side of the mean is it in principal component k?", with a digit.
"""

from functools import cache

import torch
from datasets import Dataset
from torch.nn.functional import cosine_similarity

from seq2seq.data.span_corruption import SpanCorruption, SpanCorruptionCollator, unlabelled_text
from seq2seq.data.tasks import register
from seq2seq.sentence_encoder import embed

HOLES = 1 / 3  # share of the sentences that are corrupted
QUESTIONS = 32  # components that the others may be asked about
ASKED = 9  # questions to one sentence


class Distillation(SpanCorruption):
    """Source "sentence: ..", target its holes or the answers to some questions, by chance."""

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
        """1 - cosine between the mean of the encoder's output and as many components of the sentence's vector."""
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (outputs.encoder_last_hidden_state * mask).sum(1) / mask.sum(1)
        size = min(mean.shape[-1], fields["vector"].shape[-1])
        return 1 - cosine_similarity(mean[:, :size].float(), fields["vector"][:, :size]).mean()


@cache
def sentence_vectors(split: str) -> dict[str, torch.Tensor]:
    """Set name -> (sentences, 384): what the encoder makes of each sentence of a split."""
    return {name: embed(texts) for name, texts in unlabelled_text(split).items()}


def training_statistics() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Each set's mean vector, and the principal directions (384, 384) of what is left, both of the training split."""
    vectors = sentence_vectors("train")
    means = {name: rows.mean(0) for name, rows in vectors.items()}
    centred = torch.cat([rows - means[name] for name, rows in vectors.items()])
    return means, torch.linalg.svd(centred, full_matrices=False).Vh.T


class DistillationCollator(SpanCorruptionCollator):
    """Leaves two rows of three, by chance, whole; their target is a question, its answer, another question, and so on.

    Questions are the last sentinels, answers the digits 0 and 1. A question is not to be predicted: its label is -100.
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
        if torch.rand(()) < HOLES:
            return super().pair(row)
        target = []
        for k in torch.randperm(QUESTIONS)[:ASKED].tolist():
            target += [self.questions[k], self.digits[row["vector"][k] > 0]]
        return row["input_ids"], [*target, self.end]


register(Distillation.name, Distillation)
