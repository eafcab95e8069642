"""MRPC as Microsoft published it: msr_paraphrase_train.txt and msr_paraphrase_test.txt, both with labels.

GLUE validates on a part of the training file: the pairs of sentence numbers listed in dev_ids.tsv.
"""

from collections.abc import Callable
from pathlib import Path

from datasets import Dataset

from common.errors import ConfigError, warn_once
from seq2seq.data.layouts.originals import tidy
from seq2seq.data.layouts.plain_tsv import read_plain_tsv

TRAIN, TEST = "msrparaphrasetrain", "msrparaphrasetest"
DEV_IDS = ("devids", "mrpcdevids")
NUMBERS = ("#1 ID", "#2 ID")


def is_msr(file: Path) -> bool:
    """Return True for Microsoft's training file."""
    return tidy(file.stem) == TRAIN


def msr_rows(file: Path, split: str, read: Callable[[Path, tuple[str, str]], Dataset]) -> tuple[Dataset, str]:
    """Return (rows of GLUE's "train" or "validation", place that messages name).

    Without dev_ids.tsv all rows are for training, and Microsoft's test file is the validation set, with a warning.

    file: the training file.
    read: reads a file, with the two columns of sentence numbers.
    Raises ConfigError if the files that say what to validate on are missing.
    """
    beside = {
        tidy(path.stem): path for path in sorted(file.parent.iterdir()) if path.suffix.lower() in (".tsv", ".txt")
    }
    ids = next((beside[name] for name in DEV_IDS if name in beside), None)
    if ids is None:
        if TEST not in beside:
            raise ConfigError(
                f"data_dir: {file.parent} holds {file.name} without dev_ids.tsv, which lists the rows of GLUE's "
                "validation set, or msr_paraphrase_test.txt"
            )
        warn_once(
            f"data_dir: {file.parent} holds no dev_ids.tsv, so mrpc is validated on {beside[TEST].name}, not on GLUE's "
            "validation rows, which are among the training rows"
        )
        file = file if split == "train" else beside[TEST]
    rows = read(file, NUMBERS)
    if ids is not None:
        listed = read_plain_tsv(
            ids, f"data_dir: {ids}", lambda names: dict(zip(NUMBERS, NUMBERS, strict=True)), NUMBERS
        )
        validation = set(_pairs(listed))
        kept = [n for n, pair in enumerate(_pairs(rows)) if (pair in validation) == (split == "validation")]
        if not kept:
            raise ConfigError(f"data_dir: no row of {file} is for {split}, by the sentence numbers in {ids.name}")
        rows = rows.select(kept)
    return rows, f"data_dir: {file}"


def _pairs(rows: Dataset) -> list[tuple[str, str]]:
    return list(zip(*(rows[name][:] for name in NUMBERS), strict=True))
