"""The nine tasks of GLUE (Wang et al. 2019, https://arxiv.org/abs/1804.07461). Labels are in the hub's order."""

from collections.abc import Mapping

import numpy as np
from datasets import Dataset

from seq2seq.data.published import HeldOut, Published
from seq2seq.data.tasks import register
from seq2seq.data.vader import rounded_rating

HUB_DATASET = "nyu-mll/glue"


class Cola(Published):
    """Is a sentence acceptable English?"""

    hub_dataset, name, config = HUB_DATASET, "cola", "cola"
    fields = ("sentence",)
    labels, words = ("0", "1"), ("unacceptable", "acceptable")
    metrics = ("matthews_correlation",)


class Sst2(HeldOut):
    """Is a review positive?"""

    hub_dataset, name, config = HUB_DATASET, "sst2", "sst2"
    fields = ("sentence",)
    labels, words = ("0", "1"), ("negative", "positive")


class Mrpc(Published):
    """Do two sentences mean the same thing?"""

    hub_dataset, name, config = HUB_DATASET, "mrpc", "mrpc"
    fields = ("sentence1", "sentence2")
    labels, words = ("0", "1"), ("not_equivalent", "equivalent")
    metrics = ("f1", "accuracy")


class Qqp(HeldOut):
    """Do two questions ask the same thing?"""

    hub_dataset, name, config = HUB_DATASET, "qqp", "qqp"
    fields = ("question1", "question2")
    labels, words = ("0", "1"), ("not_duplicate", "duplicate")
    metrics = ("f1", "accuracy")


class Stsb(Published):
    """How similar are two sentences, from 0 to 5? Target: the rating to the nearest 0.2, with one decimal."""

    hub_dataset, name, config = HUB_DATASET, "stsb", "stsb"
    fields = ("sentence1", "sentence2")
    columns = (*fields, "label")
    score_range = (0.0, 5.0)
    metrics = ("pearson", "spearmanr")

    def target(self, row: Mapping) -> str:
        return rounded_rating(np.float32(row["label"]))  # 3.7 * 5 is 18.5 in float32, more in float64


class Mnli(Published):
    """Does a hypothesis follow from a premise?

    Validation: genres other than those of training (mismatched); test: the same genres (matched).
    """

    hub_dataset, name, config = HUB_DATASET, "mnli", "mnli"
    fields = ("premise", "hypothesis")
    labels, words = ("0", "1", "2"), ("entailment", "neutral", "contradiction")

    def load(self, split: str) -> Dataset:
        return self.published({"validation": "validation_mismatched", "test": "validation_matched"}.get(split, split))


class Qnli(HeldOut):
    """Does a sentence answer a question?"""

    hub_dataset, name, config = HUB_DATASET, "qnli", "qnli"
    fields = ("question", "sentence")
    labels, words = ("0", "1"), ("entailment", "not_entailment")


class Rte(Published):
    """Does the second sentence follow from the first?"""

    hub_dataset, name, config = HUB_DATASET, "rte", "rte"
    fields = ("sentence1", "sentence2")
    labels, words = ("0", "1"), ("entailment", "not_entailment")


class Wnli(Published):
    """Does the second sentence, which replaces a pronoun of the first with a noun, follow from the first?"""

    hub_dataset, name, config = HUB_DATASET, "wnli", "wnli"
    fields = ("sentence1", "sentence2")
    labels, words = ("0", "1"), ("not_entailment", "entailment")


for _task in (Cola, Sst2, Mrpc, Qqp, Stsb, Mnli, Qnli, Rte, Wnli):
    register(_task.name, _task)
