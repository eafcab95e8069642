"""What the decoder learns beside an encoder that learns from a sentence encoder: to copy, to fill in, and to answer."""

import numpy as np
import torch

from seq2seq.data.distillation import Distillation, DistillationCollator, random_signs
from seq2seq.data.tasks import register

QUESTIONS = 32  # number of components that questions may be about
SHARES = {"corrupt": 0.05, "copy": 0.65}  # of the batches; in the others the decoder is asked a question
ROWS = 4  # of a batch to corrupt or to copy, one in ROWS is used: its targets are long, and cost as much as the rest
RANDOM = 0.5  # share of the rows to copy that are random


class DecoderDistillation(Distillation):
    """Source: a sentence; target, for all rows of a batch: answers to questions, the masked spans, or the source."""

    name = "span-corruption+distillation"
    token_weight = 0.3
    traces = 2  # with one, a decoder cannot copy tokens that are repeated

    def collator(self, tokenizer, model):
        super().collator(tokenizer, model)
        return DecoderCollator(tokenizer, self, model)


class DecoderCollator(DistillationCollator):
    """Chooses at random what the decoder learns from a batch: to answer a question, to fill in spans, or to copy.

    A question is one of the last sentinels: "is component k of the sentence vector above its mean?" Answers are digits.
    Questions are not predicted: their labels are -100, and only decoder_input_ids has them.
    """

    def __init__(self, tokenizer, task: DecoderDistillation, model):
        super().__init__(tokenizer, task)
        self.model, self.means = model, task.projection.sentence_mean
        self.digits = tokenizer.convert_tokens_to_ids(["0", "1"])
        self.sentinels, self.questions = self.sentinels[:-QUESTIONS], self.sentinels[-QUESTIONS:]

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        chosen, few = torch.rand(()).item(), rows[::ROWS]
        if chosen < SHARES["corrupt"]:
            return self.complete(self.batch([self.corrupt(row["input_ids"][:-1]) for row in few]), [])
        if chosen < SHARES["corrupt"] + SHARES["copy"]:
            return self.copying(few)
        return self.asking(rows)

    def copying(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return a batch whose targets are the sources, a part of which consist of random signs."""
        random = (torch.rand(len(rows)) < RANDOM).tolist()
        sources = [random_signs() if new else row["sentence"] for new, row in zip(random, rows, strict=True)]
        tokens, words = self.tokens_and_words(sources, [""] * len(rows))
        words = [np.full_like(numbers, -1) if new else numbers for new, numbers in zip(random, words, strict=True)]
        return self.complete(self.batch([(each, each) for each in tokens]), rows, words)

    def asking(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return a batch whose targets are a question and its answer."""
        tokens, words = self.prefixed(rows)
        pairs = []
        for each, row, number in zip(tokens, rows, torch.randint(QUESTIONS, (len(rows),)).tolist(), strict=True):
            component = self.vectors[row["number"]][:, number]
            above = component.sum(dtype=np.float32) > self.means[number] * len(component)
            pairs.append((each, [self.questions[number], self.digits[above]]))
        batch = self.complete(self.batch(pairs), rows, words)
        batch["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(batch["labels"])
        batch["labels"][:, 0] = -100
        return batch


register(DecoderDistillation.name, DecoderDistillation)
