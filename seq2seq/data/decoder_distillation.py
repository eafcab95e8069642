"""What the decoder learns beside an encoder that learns from a sentence encoder: to copy, to fill in, and to answer."""

import numpy as np
import torch

from common.errors import ConfigError
from common.json_settings import has_type
from seq2seq.data.distillation import Distillation, DistillationCollator, random_signs
from seq2seq.data.tasks import register

QUESTIONS = 32  # number of components that questions may be about
TARGETS = ("spans", "copies", "answers")
ROWS = 4  # of a batch to fill in or to copy, one in ROWS is used: its targets are long, and cost as much as the rest
RANDOM = 0.5  # share of the rows to copy that are random


class DecoderDistillation(Distillation):
    """Source: a sentence; target, for all rows of a batch: the masked spans, the source, or the answers to questions.

    The key decoder_targets sets how often each is drawn. Raises ConfigError if it is wrong.
    """

    name = "span-corruption+distillation"
    token_weight = 0.3
    traces = 2  # with one, a decoder cannot copy tokens that are repeated

    def __init__(self, *given):
        super().__init__(*given)
        shares = self.arguments.decoder_targets
        self.shares = dict.fromkeys(TARGETS, 1) if shares is None else shares
        check_shares(self.shares)

    def collator(self, tokenizer, model):
        super().collator(tokenizer, model)
        return DecoderCollator(tokenizer, self)


def check_shares(shares: dict) -> None:
    """Raise ConfigError unless `shares` are known names, each with a positive number."""
    wrong = [name for name in shares if name not in TARGETS]
    if wrong or not shares:
        what = f"{wrong[0]!r} is unknown" if wrong else "it is empty"
        raise ConfigError(f"decoder_targets: {what}; allowed: {', '.join(TARGETS)}")
    for name, share in shares.items():
        if not has_type(share, float) or not 0 < share <= 1000:
            raise ConfigError(f"decoder_targets: {name} is {share!r}; it must be a number above 0, at most 1000")


class DecoderCollator(DistillationCollator):
    """Chooses at random what the decoder learns from a batch: to fill in spans, to copy, or to answer a question.

    A question is one of the last sentinels, which then precedes the sentence: "is component k of its vector above the
    mean?" The answer is a digit.
    """

    def __init__(self, tokenizer, task: DecoderDistillation):
        super().__init__(tokenizer, task)
        self.means = task.projection.sentence_mean
        self.digits = tokenizer.convert_tokens_to_ids(["0", "1"])
        self.sentinels, self.questions = self.sentinels[:-QUESTIONS], self.sentinels[-QUESTIONS:]
        self.shares = torch.tensor([task.shares.get(name, 0) for name in TARGETS], dtype=torch.float64)

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        chosen = TARGETS[torch.multinomial(self.shares, 1)]
        return getattr(self, chosen)(rows if chosen == "answers" else rows[::ROWS])

    def spans(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return a batch whose targets are the masked spans of the sources."""
        return self.complete(self.batch([self.corrupt(row["input_ids"][:-1]) for row in rows]), [])

    def copies(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return a batch whose targets are the sources, a part of which consist of random signs."""
        random = (torch.rand(len(rows)) < RANDOM).tolist()
        sources = [random_signs() if new else row["sentence"] for new, row in zip(random, rows, strict=True)]
        tokens, words = self.tokens_and_words(sources, [""] * len(rows))
        words = [np.full_like(numbers, -1) if new else numbers for new, numbers in zip(random, words, strict=True)]
        return self.complete(self.batch([(each, each) for each in tokens]), rows, words)

    def answers(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return a batch whose sources start with a question, and whose targets are the answers."""
        tokens, words = self.prefixed(rows)
        pairs = []
        for each, row, number in zip(tokens, rows, torch.randint(QUESTIONS, (len(rows),)).tolist(), strict=True):
            component = self.vectors[row["number"]][:, number]
            above = component.sum(dtype=np.float32) > self.means[number] * len(component)
            pairs.append(([self.questions[number], *each], [self.digits[above]]))
        return self.complete(self.batch(pairs), rows, [np.append(-1, numbers) for numbers in words])


register(DecoderDistillation.name, DecoderDistillation)
