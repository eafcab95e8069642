"""Tasks of GLUE (Wang et al. 2019, https://arxiv.org/abs/1804.07461), from the hub or a local copy of it."""

from pathlib import Path

from datasets import Dataset, load_dataset

from adapters import ConfigError, one_line
from seq2seq.data.tasks import Task, register

HUB_DATASET = "nyu-mll/glue"


class Mrpc(Task):
    """Do two sentences mean the same? The published validation set is halved into validation and test."""

    name = "mrpc"
    labels = ("0", "1")
    metrics = ("f1", "accuracy")

    def load(self, split: str, seed: int, data_dir: str | None) -> Dataset:
        if split == "train":
            return load_published("mrpc", "train", data_dir)
        rows = load_published("mrpc", "validation", data_dir).shuffle(seed=seed)
        half = len(rows) // 2
        return rows.select(range(half) if split == "validation" else range(half, len(rows)))

    def format(self, row: dict) -> tuple[str, str]:
        return f"sentence1: {row['sentence1']} sentence2: {row['sentence2']}", str(row["label"])


def load_published(config: str, split: str, data_dir: str | None) -> Dataset:
    """A published split. data_dir: a local copy of the hub's data set, in its layout `{config}/{split}-*.parquet`."""
    try:
        if data_dir is None:
            return load_dataset(HUB_DATASET, config, split=split)
        files = sorted(str(path) for path in Path(data_dir, config).glob(f"{split}-*.parquet"))
        if not files:
            raise ConfigError(f"data_dir is {data_dir!r}, which holds no {config}/{split}-*.parquet")
        return load_dataset("parquet", data_files={split: files}, split=split)
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"{HUB_DATASET} ({config}, {split}) cannot be loaded: {one_line(error)}; "
            "offline, set data_dir to a local copy"
        ) from None


register(Mrpc())
