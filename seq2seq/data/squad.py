"""SQuAD 1.1 (Rajpurkar et al. 2016, https://arxiv.org/abs/1606.05250): questions whose answer is part of a text."""

import re
from collections.abc import Mapping, Sequence

from seq2seq.data.published import HeldOut, texts_of
from seq2seq.data.tasks import register
from seq2seq.text_metrics import em, text_f1


class Answers(HeldOut):
    """A task with free text as target; each row lists the accepted texts in "answers"."""

    reference_fields = ("answers",)
    answer_field = "answers"
    metrics = ("f1", "em")

    def read_answer(self, value: list[str], place: str) -> list[str] | None:
        return value or None

    def accepted(self, references: Mapping[str, Sequence]) -> Sequence[list[str]]:
        return references["answers"]

    def score(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> dict[str, float]:
        predicted, answers = self.compared(predictions, references)
        return {"f1": text_f1(predicted, answers), "em": em(predicted, answers)}


class Squad(Answers):
    """Source "question: .. context: .." with spaces around punctuation; target: the first answer, as published."""

    hub_dataset, name, config = "rajpurkar/squad", "squad", "plain_text"
    fields = ("question", "context")
    columns = (*fields, "answers")
    nested = {"answers": (lambda cell: texts_of(cell and cell["text"]), '{"text": ["an answer"]}')}

    def source(self, row: Mapping) -> str:
        return " ".join(f"{name}: {pad_punctuation(row[name])}" for name in self.fields)

    def target(self, row: Mapping) -> str:
        return row["answers"][0]


def pad_punctuation(text: str) -> str:
    """Make each punctuation mark a word of its own, with one space between words."""
    return " ".join(re.sub(r"([^\w\s]|_)", r" \1 ", text).split())


register(Squad.name, Squad)
