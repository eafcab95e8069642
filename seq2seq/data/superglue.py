"""The eight tasks of SuperGLUE (Wang et al. 2019, https://arxiv.org/abs/1905.00537). Labels are in the hub's order."""

import re
from collections.abc import Mapping, Sequence

from datasets import Dataset

from common.errors import ConfigError, shortened, warn_once
from seq2seq import metrics
from seq2seq.data.published import Published, texts_of
from seq2seq.data.squad import Answers
from seq2seq.data.tasks import register

HUB_DATASET = "aps/super_glue"


class Boolq(Published):
    """Is the answer to a yes/no question about a passage yes?"""

    hub_dataset, name, config = HUB_DATASET, "superglue-boolq", "boolq"
    fields = ("question", "passage")
    labels, words = ("0", "1"), ("False", "True")


class Rte(Published):
    """Does a hypothesis follow from a premise?"""

    hub_dataset, name, config = HUB_DATASET, "superglue-rte", "rte"
    fields = ("premise", "hypothesis")
    labels, words = ("0", "1"), ("entailment", "not_entailment")


class Cb(Published):
    """Does a hypothesis follow from a premise, contradict it, or neither?"""

    hub_dataset, name, config = HUB_DATASET, "superglue-cb", "cb"
    fields = ("premise", "hypothesis")
    labels, words = ("0", "1", "2"), ("entailment", "contradiction", "neutral")
    metrics = ("f1_multiclass", "accuracy")


class Copa(Published):
    """Which of two choices is the cause, or the effect, of a premise?"""

    hub_dataset, name, config = HUB_DATASET, "superglue-copa", "copa"
    fields = ("premise", "choice1", "choice2", "question")
    labels, words = ("0", "1"), ("choice1", "choice2")


class Multirc(Published):
    """Is an answer to a question about a paragraph correct? All rows of a question are in the same split.

    "idx" is the number of the question; em is the share of questions with every answer judged correctly.
    """

    hub_dataset, name, config = HUB_DATASET, "superglue-multirc", "multirc"
    fields = ("question", "answer", "paragraph")
    columns = (*fields, "idx", "label")
    nested = {"idx": (lambda cell: int(cell["question"]), '{"paragraph": 0, "question": 0, "answer": 0}')}
    group_field = "idx"
    reference_fields = ("idx",)
    labels, words = ("0", "1"), ("False", "True")
    metrics = ("f1", "em")

    def source(self, row: Mapping) -> str:
        return super().source({name: without_markup(row[name]) for name in self.fields})

    def score(self, predictions: Sequence[str], references: Mapping[str, Sequence]) -> dict[str, float]:
        predicted, wanted = self.compared(predictions, references)
        em = metrics.group_em(predicted, wanted, references["idx"])
        return {"f1": metrics.f1(predicted, wanted), "em": em}


def without_markup(text: str) -> str:
    """Remove <b> and </b>, turn <br> into a space, and put one space between words."""
    return " ".join(re.sub(r"</?b>", "", text.replace("<br>", " ")).split())


class Wic(Published):
    """Does a word have the same meaning in both sentences?"""

    hub_dataset, name, config = HUB_DATASET, "superglue-wic", "wic"
    fields = ("sentence1", "sentence2", "word")
    labels, words = ("0", "1"), ("False", "True")


class WscFixed(Published):
    """Does a pronoun (between # and #) stand for a noun (between * and *)?"""

    hub_dataset, name, config = HUB_DATASET, "superglue-wsc.fixed", "wsc.fixed"
    columns = ("text", "span1_text", "span1_index", "span2_text", "span2_index", "label")
    nested = dict.fromkeys(("span1_index", "span2_index"), (int, "3"))
    labels, words = ("0", "1"), ("False", "True")

    def _read(self, split: str) -> Dataset:
        """Return the rows. Raises ConfigError for a span outside its text, also in a row that is not used."""
        rows = super()._read(split)
        apart = []
        for row in rows:
            text, spans = row["text"], self._spans(row)
            apart += [(span, text) for index, span in spans if not text.startswith(span, located(text, index, span)[0])]
        if apart:
            span, text = (shortened(each, 80) for each in apart[0])
            warn_once(
                f"{self.name} ({split}): {len(apart)} spans differ from the words at their index, which are marked; "
                f"the first is {span!r} in {text!r}"
            )
        return rows

    def _spans(self, row: Mapping) -> list[tuple[int, str]]:
        """Return (index of the first word, text) of both spans, spelt as in the row's text."""
        pairs = [(row[f"span{n}_index"], row[f"span{n}_text"]) for n in (1, 2)]
        return [(index, spelt_as_in(row["text"], index, span)) for index, span in pairs]

    def source(self, row: Mapping) -> str:
        first, second = self._spans(row)
        text = mark(row["text"], *first, "*")
        if second[0] > first[0]:
            second = (second[0] + 2, second[1])  # the two marks of the first span are words, too
        return f"text: {mark(text, *second, '#')}"


def mark(text: str, index: int, span: str, sign: str) -> str:
    """Return `text` with `sign` before and after `span`, which starts at word number `index`.

    If the words there differ from `span`, as many words as it has are marked. Raises ConfigError if there are too few.
    """
    start, end = located(text, index, span)
    if text.startswith(span, start):
        end = start + len(span)  # a comma or "'s" after the span stays outside
    return f"{text[:start]}{sign} {text[start:end]} {sign}{text[end:]}"


def located(text: str, index: int, span: str) -> tuple[int, int]:
    """Return the first character of word number `index`, and the end of as many words as the span has.

    Raises ConfigError if there are too few.
    """
    found = list(re.finditer(r"\S+", text))
    last = index + len(span.split()) - 1
    if not 0 <= index <= last < len(found):
        raise ConfigError(f"superglue-wsc.fixed: {text!r} has no words {index} to {last} for the span {span!r}")
    return found[index].start(), found[last].end()


def spelt_as_in(text: str, index: int, span: str) -> str:
    """Return the span with the first letter's case of word number `index`, without line breaks and a final full stop.

    The original files need this, the hub's do not: a span that is part of the text stays as it is.
    """
    words = text.split()
    if span in text or not 0 <= index < len(words):
        return span
    first = span[0].lower() if words[index][0].islower() else span[0].upper()
    spelt = f"{first}{span[1:]}".rstrip(".").replace("\n", " ")
    return spelt if spelt in text else span


class Record(Answers):
    """Which of the entities in a passage replaces "@placeholder"? Several may be correct.

    There is one row per answer in training, and one per query otherwise. Answers are in alphabetical order, entities in
    that of the passage: the hub's copy has them as sets, the original files have every mention.
    """

    hub_dataset, name, config = HUB_DATASET, "superglue-record", "record"
    columns = ("passage", "query", "entities", "answers")
    nested = {
        "entities": (texts_of, '["one", "another"]'),
        "answers": (lambda cell: sorted(set(texts_of(cell))), '["one", "another"]'),
    }

    def load(self, split: str) -> Dataset:
        rows, used = super().load(split), None if split == "train" else 1
        pairs = [(n, answer) for n, answers in enumerate(rows["answers"][:]) for answer in answers[:used]]
        return rows.select([n for n, _ in pairs]).add_column("answer", [answer for _, answer in pairs])

    def source(self, row: Mapping) -> str:
        passage, entities = join_highlights(row["passage"]), ", ".join(in_order(row["entities"], row["passage"]))
        return f"query: {row['query']} entities: {entities} passage: {passage}"

    def target(self, row: Mapping) -> str:
        return row["answer"]


def in_order(entities: Sequence[str], passage: str) -> list[str]:
    """Return each entity once, in the order of their first places in the passage; what is not there comes last."""
    found = {entity: passage.find(entity) for entity in entities}
    return sorted(found, key=lambda entity: (found[entity] < 0, found[entity], entity))


def join_highlights(passage: str) -> str:
    """Return the passage in one line, without "@highlight"; a sentence before it that has no full stop gets one."""
    parts = [" ".join(part.split()) for part in passage.split("@highlight")]
    ended = [part if part.endswith((".", "!", "?", '"', "'")) else f"{part}." for part in parts[:-1] if part]
    return " ".join([*ended, parts[-1]]).strip()


for _task in (Boolq, Rte, Cb, Copa, Multirc, Wic, WscFixed, Record):
    register(_task.name, _task)
