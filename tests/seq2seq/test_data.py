import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from datasets import Dataset
from huggingface_hub import constants

from common.errors import ConfigError
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import SPLITS, get_task, task_names
from seq2seq.data.splits import normalise, split_by_text
from seq2seq.data.unlabelled import unlabelled_text
from seq2seq.data.vader import FILES, read_set, rounded_rating
from seq2seq.downloads import cache_directory, fetch_from_index

ROOT = Path(__file__).parent.parent.parent
ROWS = {"movie": 10605, "amazon": 3708, "tweets": 4200, "nyt": 5190}
SHARE_POSITIVE = {"movie": 0.494, "amazon": 0.574, "tweets": 0.690, "nyt": 0.425}


@pytest.mark.parametrize("name", FILES)
def test_the_published_sets(name):
    texts, ratings = read_set(name)
    assert len(texts) == len(ratings) == ROWS[name]
    assert sum(rating > 0 for rating in ratings) / len(ratings) == pytest.approx(SHARE_POSITIVE[name], abs=5e-4)
    assert all(-4 <= rating <= 4 for rating in ratings)
    assert all(texts)


@pytest.mark.parametrize("name", FILES)
def test_no_sentence_is_in_two_splits(name):
    texts, _ = read_set(name)
    parts = split_by_text(texts)
    assert sorted(row for part in parts for row in part) == list(range(len(texts)))
    assert [len(part) / len(texts) for part in parts] == pytest.approx([0.7, 0.15, 0.15], abs=0.002)
    words = [{normalise(texts[row]) for row in part} for part in parts]
    assert len(set.union(*words)) == sum(map(len, words))
    for task in (f"vader-{name}", f"vader-{name}-rating"):
        for split, part in zip(SPLITS, parts, strict=True):
            sources = get_task(task).examples(split, prefix=False)["source"]
            assert list(sources) == [f"sentence: {texts[row]}" for row in part]


def test_splits_keep_duplicates_together_and_do_not_depend_on_order():
    texts = [f"Sentence {n // 3}{'!' * (n % 3)}" for n in range(300)]
    parts = split_by_text(texts)
    assert [len(part) for part in parts] == pytest.approx([210, 45, 45], abs=3)
    in_part = {normalise(texts[row]): number for number, part in enumerate(parts) for row in part}
    backwards = split_by_text(texts[::-1])
    assert all(in_part[normalise(texts[::-1][row])] == n for n, part in enumerate(backwards) for row in part)
    assert len(in_part) == 100


def test_pretraining_text_holds_no_held_out_sentence():
    held_out = {normalise(t) for split in SPLITS[1:] for texts in unlabelled_text(split).values() for t in texts}
    training = [text for texts in unlabelled_text("train").values() for text in texts]
    assert len(training) > 16_000
    assert not [text for text in training if normalise(text) in held_out]


@pytest.mark.parametrize(
    ("rating", "text"),
    [(3.5, "3.6"), (0.1, "0.0"), (-0.05, "0.0"), (-3.95, "-4.0"), (1.25, "1.2"), (2.3, "2.4"), (4.0, "4.0")],
)
def test_ratings_are_rounded_to_a_fifth(rating, text):
    assert rounded_rating(rating) == text


def test_text_formats():
    label, rating = get_task("vader-movie"), get_task("vader-movie-rating")
    row = {"sentence": "Not bad at all.", "rating": 1.55}
    assert label.format(row) == ("sentence: Not bad at all.", "1")
    assert label.format({**row, "rating": 0.0})[1] == "0"
    words = get_task("vader-movie", DataTrainingArguments(label_style="words"))
    assert [words.format({**row, "rating": rating})[1] for rating in (0.0, 0.05)] == ["negative", "positive"]
    assert rating.format(row)[1] == "1.6"
    pair = {"sentence1": "A.", "sentence2": "B.", "label": 1}
    assert get_task("mrpc").format(pair) == ("sentence1: A. sentence2: B.", "1")
    first = label.examples("test")[0]["source"]
    assert first.startswith("vader-movie sentence: ")
    assert get_task("span-corruption").examples("test")[0]["source"] == unlabelled_text("test")["movie"][0]


def test_mrpc_halves_the_published_validation_set(tmp_path):
    (tmp_path / "mrpc").mkdir()
    for split, count in (("train", 7), ("validation", 9)):
        rows = [{"sentence1": f"{split}{n}", "sentence2": "b", "label": n % 2, "idx": n} for n in range(count)]
        Dataset.from_list(rows).to_parquet(tmp_path / "mrpc" / f"{split}-00000-of-00001.parquet")
    arguments = DataTrainingArguments(data_dir=str(tmp_path))
    task = get_task("mrpc", arguments)
    parts = {split: list(task.examples(split)["source"]) for split in SPLITS}
    assert [len(part) for part in parts.values()] == [7, 4, 5]
    assert len(set(parts["validation"]) | set(parts["test"])) == 9
    assert parts["test"] == list(task.examples("test")["source"])
    assert parts["test"] != list(get_task("mrpc", arguments, seed=1).examples("test")["source"])


def test_a_missing_local_copy_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="holds no directory mrpc, train-") as error:
        get_task("mrpc", DataTrainingArguments(data_dir=str(tmp_path))).examples("train")
    assert "\n" not in str(error.value)


def test_a_hub_that_is_switched_off_is_one_line(tmp_path, monkeypatch):
    """conftest.py switches it off for all tests. The caches are empty."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"nyu-mll/glue \(mrpc, train\) cannot be loaded.*data_dir to a local copy$"):
        get_task("mrpc").examples("train")


def test_a_hub_that_does_not_answer_is_one_line(tmp_path):
    """In a process of its own, whose caches are empty."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:1"}
    code = "from seq2seq.data import get_task; get_task('mrpc').examples('train')"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert "Retrying" not in result.stderr
    assert last.startswith("common.errors.ConfigError: nyu-mll/glue (mrpc, train) cannot be loaded")
    assert last.endswith("set data_dir to a local copy")


def test_unknown_tasks_offer_the_nearest():
    with pytest.raises(ConfigError, match="test_dataset_name is 'vader-movi', .* did you mean 'vader-movie'?"):
        get_task("vader-movi", key="test_dataset_name")
    assert "vader-tweets-rating" in task_names()


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path


def test_the_cache_is_the_users(empty_cache, monkeypatch):
    assert cache_directory() == empty_cache / "t5-tensor-lab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "t5-tensor-lab"


def test_offline_without_a_cache_says_what_to_do(empty_cache):
    with pytest.raises(ConfigError, match="run once with access to a package index, or copy the file there") as error:
        fetch_from_index("no-such-package-here==1", "no-such-package.tar.gz", "0" * 64)
    assert "\n" not in str(error.value)
    assert not list((empty_cache / "t5-tensor-lab").iterdir())


def test_a_warm_cache_needs_no_index_and_a_damaged_file_is_not_used(empty_cache):
    import hashlib

    target = empty_cache / "t5-tensor-lab" / "data.bin"
    target.parent.mkdir()
    target.write_bytes(b"data")
    sha256 = hashlib.sha256(b"data").hexdigest()
    assert fetch_from_index("no-such-package-here==1", "data.bin", sha256) == target
    target.write_bytes(b"dat")
    with pytest.raises(ConfigError, match="could not download"):
        fetch_from_index("no-such-package-here==1", "data.bin", sha256)


def test_an_unwritable_cache_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ConfigError, match="set XDG_CACHE_HOME"):
        fetch_from_index("no-such-package-here==1", "data.bin", "0" * 64)


def test_no_data_is_in_the_repository():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    sentence = json.dumps(read_set("movie")[0][0])[1:40]
    small = [ROOT / f for f in tracked if (ROOT / f).is_file() and (ROOT / f).stat().st_size < 2**20]
    assert not [path for path in small if path.suffix != ".safetensors" and sentence in path.read_text(errors="ignore")]
