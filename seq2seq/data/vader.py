"""The default data: four sets of sentences, each rated by about 20 people from -4 (negative) to 4 (positive).

Source: C.J. Hutto and E. Gilbert, VADER, ICWSM 2014; MIT licence; part of the source distribution vaderSentiment 3.3.2.
"""

import io
import tarfile
from collections.abc import Mapping
from functools import cache, partial

from datasets import Dataset

from seq2seq.arguments import DataTrainingArguments
from seq2seq.data.splits import split_by_text
from seq2seq.data.tasks import SPLIT_SEED, SPLITS, Task, register
from seq2seq.downloads import fetch_from_index

PACKAGE = "vaderSentiment==3.3.2"
FILENAME = "vaderSentiment-3.3.2.tar.gz"
SHA256 = "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
FILES = {
    "movie": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}


def fetch() -> bytes:
    """Return the tar archive of the rated sets, which is inside the package's archive."""
    package = fetch_from_index(PACKAGE, FILENAME, SHA256, ("--no-binary", ":all:"))
    return _member(package.read_bytes(), "hutto_ICWSM_2014.tar.gz")


@cache
def read_set(name: str) -> tuple[list[str], list[float]]:
    """Return the sentences and mean ratings of "movie", "amazon", "tweets" or "nyt", in the file's order."""
    lines = _member(fetch(), FILES[name]).decode("utf-8", errors="replace").splitlines()
    rows = [line.split("\t", 2) for line in lines if line.strip()]
    return [text.strip() for _, _, text in rows], [float(rating) for _, rating, _ in rows]


def rows_of(name: str, split: str) -> list[int]:
    """Return the row numbers of "train", "validation" or "test" of a set."""
    return _rows_of_splits(name)[SPLITS.index(split)]


@cache
def _rows_of_splits(name: str) -> list[list[int]]:
    return split_by_text(read_set(name)[0])


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = next(m for m in tar if m.name.endswith("/" + name) and "/._" not in m.name)
        return tar.extractfile(member).read()


class VaderTask(Task):
    """Is the mean rating above 0? Source "sentence: ..", target "1" or "0"."""

    fields = ("sentence",)
    labels, words = ("0", "1"), ("negative", "positive")

    def __init__(self, set_name: str, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED):
        super().__init__(arguments, seed)
        self.set_name = set_name
        self.name = f"vader-{set_name}"

    def load(self, split: str) -> Dataset:
        texts, ratings = read_set(self.set_name)
        rows = rows_of(self.set_name, split)
        return Dataset.from_dict({"sentence": [texts[r] for r in rows], "rating": [ratings[r] for r in rows]})

    def target(self, row: Mapping) -> str:
        return self.targets[row["rating"] > 0]


class VaderRatingTask(VaderTask):
    """What is the mean rating? Target: the rating to the nearest 0.2, with one decimal, such as "1.4"."""

    labels = words = None
    score_range = (-4.0, 4.0)
    metrics = ("pearson", "spearmanr")

    def __init__(self, set_name: str, arguments: DataTrainingArguments | None = None, seed: int = SPLIT_SEED):
        super().__init__(set_name, arguments, seed)
        self.name = f"vader-{set_name}-rating"

    def target(self, row: Mapping) -> str:
        return rounded_rating(row["rating"])


def rounded_rating(rating: float) -> str:
    """Return the nearest multiple of 0.2 with one decimal, never "-0.0"."""
    return f"{round(rating * 5) / 5 + 0.0:.1f}"


for _set_name in FILES:
    register(f"vader-{_set_name}", partial(VaderTask, _set_name))
    register(f"vader-{_set_name}-rating", partial(VaderRatingTask, _set_name))
