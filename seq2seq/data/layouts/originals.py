"""What the original download of each task calls its folder, its files and its columns, where the hub has other names.

Names of folders and files are compared without regard to case and punctuation: SST-2, sst2 and sst_2 are the same.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from seq2seq.data.layouts.nested import MULTIRC, RECORD, SQUAD, WSC, Nested

# The hub's data set -> folders that hold the folders of its tasks.
FAMILIES = {
    "glue": ("glue", "glue_data"),
    "super_glue": ("super_glue", "SuperGLUE", "superglue_data", "combined"),
    "squad": ("squad",),
}


@dataclass(frozen=True)
class Original:
    """The original layout of one task.

    folders: names of its folder, besides the name of its configuration on the hub.
    files: split -> names of its file without suffix, besides the split's own names.
    columns: the hub's column -> other names for it.
    header: the columns of TSV files that have no header line.
    nested: how rows are made from nested objects.
    """

    folders: Sequence[str] = ()
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    header: Sequence[str] | None = None
    nested: Nested | None = None


MULTINLI = {
    "train": ("multinli_1.0_train",),
    "validation_matched": ("multinli_1.0_dev_matched",),
    "validation_mismatched": ("multinli_1.0_dev_mismatched",),
}
SQUAD_FILES = {"train": ("train-v1.1",), "validation": ("dev-v1.1",)}
# Microsoft's files; GLUE's validation rows are a part of the training file, see `msr`.
MSR_FILES = {"train": ("msr_paraphrase_train",), "validation": ("msr_paraphrase_train",)}
AS_PREMISE = {"premise": ("sentence1",), "hypothesis": ("sentence2",)}
AS_SENTENCES = {"sentence1": ("premise",), "sentence2": ("hypothesis",)}  # both benchmarks hold RTE, in other columns

ORIGINALS = {
    "cola": Original(("CoLA",), header=("source", "label", "mark", "sentence")),
    "sst2": Original(("SST-2",)),
    "mrpc": Original(
        ("MRPC",), MSR_FILES, {"sentence1": ("#1 String",), "sentence2": ("#2 String",), "label": ("Quality",)}
    ),
    "qqp": Original(("QQP",), columns={"label": ("is_duplicate",)}),
    "stsb": Original(("STS-B",), columns={"label": ("score",)}),
    "mnli": Original(("MNLI", "multinli_1.0"), MULTINLI, {**AS_PREMISE, "label": ("gold_label",)}),
    "qnli": Original(("QNLI",)),
    "rte": Original(("RTE",), columns=AS_SENTENCES),
    "wnli": Original(("WNLI",)),
    "superglue-boolq": Original(("BoolQ",)),
    "superglue-cb": Original(("CB",)),
    "superglue-copa": Original(("COPA",)),
    "superglue-multirc": Original(("MultiRC",), nested=MULTIRC),
    "superglue-record": Original(("ReCoRD",), nested=RECORD),
    "superglue-rte": Original(("RTE",), columns=AS_PREMISE),
    "superglue-wic": Original(("WiC",)),
    "superglue-wsc.fixed": Original(("WSC",), nested=WSC),
    "squad": Original(("squad", "SQuAD1.1", "SQuAD-v1.1"), SQUAD_FILES, nested=SQUAD),
}


def tidy(name: str) -> str:
    """Return a name without case and punctuation: "SST-2" -> "sst2"."""
    return re.sub(r"[\W_]", "", name.casefold())
