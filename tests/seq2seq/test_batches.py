"""Rows of tasks to tokens and batches: limits, order, the cache."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from common.errors import ConfigError
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import get_task, token_cache
from seq2seq.data.batches import (
    PaddingCollator,
    TaskRows,
    concatenate_tokens,
    load_split,
    load_texts,
    longest_target,
    tasks_of_splits,
    tokenise,
    whole_groups,
)

TASK = get_task("vader-nyt")


def few_rows(count=40, **keys) -> TaskRows:
    arguments = DataTrainingArguments(max_train_samples=count, **keys)
    return TaskRows(TASK, load_split(TASK, "train", arguments, seed=1, prefix=False))


def test_sample_limits_are_the_first_of_one_shuffle():
    few, more = few_rows(20), few_rows(40)
    assert len(few) == 20
    assert list(few.texts["source"]) == list(more.texts["source"])[:20]
    with pytest.raises(ConfigError, match="max_train_samples is 0"):
        few_rows(0)


def test_low_resource_rows_are_drawn_by_the_seed_of_the_run():
    def rows(number, seed):
        return list(load_split(TASK, "train", DataTrainingArguments(low_resource=number), seed, False)["source"])

    assert rows(100, 1) == rows(100, 1) != rows(100, 2)
    assert rows(100, 1) == rows(500, 1)[:100]
    validation = [load_split(TASK, "validation", DataTrainingArguments(low_resource=5), s, False) for s in (1, 2)]
    assert list(validation[0]["source"]) == list(validation[1]["source"])
    assert len(validation[0]) > 5
    with pytest.raises(ConfigError, match="low_resource is 100000; vader-nyt has 3633 training rows"):
        rows(100_000, 1)


def test_limits_do_not_part_groups():
    groups = [7, 7, 7, 8, 9, 9, 7]
    assert whole_groups(groups, 5) == [0, 1, 2, 6, 3]
    assert whole_groups(groups, 2) == [0, 1, 2, 6]  # at least one group
    assert whole_groups(groups, 99) == [0, 1, 2, 6, 3, 4, 5]


def test_an_empty_split_is_an_error(monkeypatch):
    monkeypatch.setattr(type(TASK), "load", lambda self, split: Dataset.from_dict({"sentence": [], "rating": []}))
    with pytest.raises(ConfigError, match="task_name is 'vader-nyt', whose train split is empty"):
        few_rows()


def tasks(**keys):
    return tasks_of_splits(DataTrainingArguments(**keys), seed=42)


def test_tasks_of_each_split():
    several = tasks(task_name=["vader-nyt", "vader-movie"], test_dataset_name="vader-tweets")
    assert [[task.name for task in several[split]] for split in ("train", "validation", "test")] == [
        ["vader-nyt", "vader-movie"],
        ["vader-nyt", "vader-movie"],
        ["vader-tweets"],
    ]
    texts = load_texts(several, ["test"], DataTrainingArguments(), 42, prefix=True)
    assert texts["test"][0].texts["source"][0].startswith("vader-tweets sentence: ")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"task_name": ["vader-nyt", "vader-nyt"]}, "names 'vader-nyt' twice"),
        ({"task_name": []}, "task_name is an empty list"),
        ({"task_name": ["vader-nyt", "span-corruption"]}, "span-corruption, which has no metrics"),
        ({"task_name": "vader-nyt", "eval_dataset_name": ["vader-movi"]}, "eval_dataset_name is 'vader-movi'"),
        ({"task_name": "span-corruption", "test_dataset_name": "vader-nyt"}, "test_dataset_name is vader-nyt"),
    ],
)
def test_tasks_that_cannot_be(keys, words):
    with pytest.raises(ConfigError, match=words):
        tasks(**keys)


def test_tokens_are_those_of_the_texts(tokenizer):
    arguments = DataTrainingArguments(max_source_length=16)
    rows = tokenise(few_rows(), tokenizer, arguments)
    for text, target, token_row in zip(rows.texts["source"], rows.texts["target"], rows.tokens, strict=True):
        assert token_row["input_ids"] == tokenizer(text, max_length=16, truncation=True)["input_ids"]
        assert token_row["labels"] == tokenizer(target)["input_ids"]
        assert token_row["task"] == "vader-nyt"
    assert rows.lengths.max() == 16
    assert longest_target([[rows]]) == 1 + max(len(labels) for labels in rows.tokens["labels"])


def test_by_length_texts_and_tokens_are_ordered_alike(tokenizer):
    arguments = DataTrainingArguments()
    plain, ordered = (tokenise(few_rows(), tokenizer, arguments, by_length=each) for each in (False, True))
    assert (np.diff(ordered.lengths) >= 0).all()
    by_text = dict(zip(plain.texts["source"], plain.tokens["input_ids"], strict=True))
    assert [by_text[text] for text in ordered.texts["source"]] == list(ordered.tokens["input_ids"])


def test_batches_are_padded_to_their_longest_row_and_rows_of_a_task_stand_together():
    rows = [
        {"input_ids": [5, 6, 7], "labels": [1], "task": "b"},
        {"input_ids": [8], "labels": [2, 3], "task": "a"},
        {"input_ids": [9, 9], "labels": [4], "task": "b"},
    ]
    batch = PaddingCollator(0, tell_tasks=True)(rows)
    assert batch["task"] == ["a", "b", "b"]
    assert batch["input_ids"].tolist() == [[8, 0, 0], [5, 6, 7], [9, 9, 0]]
    assert batch["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 0]]
    assert batch["labels"].tolist() == [[2, 3], [1, -100], [4, -100]]
    assert PaddingCollator(0, tell_tasks=True)(rows[:1])["task"] == "b"
    plain = PaddingCollator(0, tell_tasks=False)(rows)
    assert set(plain) == {"input_ids", "attention_mask", "labels"}
    assert plain["input_ids"][0].tolist() == [5, 6, 7]
    assert plain["attention_mask"].dtype == torch.long


def test_tasks_lie_one_after_the_other(tokenizer):
    rows = tokenise(few_rows(5), tokenizer, DataTrainingArguments())
    both = concatenate_tokens([rows, rows])
    assert list(both["input_ids"]) == list(rows.tokens["input_ids"]) * 2


@pytest.fixture
def counted(tmp_path, monkeypatch, tokenizer):
    """tokenised(texts) with an empty cache, and how many rows the tokenizer has seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    seen = []

    class Counting(type(tokenizer)):
        def __call__(self, texts, **keys):
            seen.extend(texts)
            return super().__call__(texts, **keys)

    counting = Counting.from_pretrained(tokenizer.name_or_path)

    def call(texts, limits=(16, 8), change=lambda tokenizer: None):
        change(counting)
        before = len(seen)
        rows, _ = token_cache.tokenised(Dataset.from_dict(texts), counting, *limits)
        return rows, len(seen) - before

    return call


TEXTS = {"source": ["a fine film", "dull"], "target": ["1", "0"]}


def test_what_was_tokenised_once_is_read_again(counted, tmp_path):
    first, seen = counted(TEXTS)
    assert seen == 4
    again, seen = counted(TEXTS)
    assert seen == 0
    assert again.to_dict() == first.to_dict()
    assert len(list((tmp_path / "cache/t5-tensor-lab/tokens").iterdir())) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"texts": {"source": ["a fine film", "dull."], "target": ["1", "0"]}},
        {"texts": {"source": ["a fine film", "dull"], "target": ["1", "1"]}},
        {"texts": {"source": ["a fine filmd", "ull"], "target": ["1", "0"]}},
        {"texts": {"source": ["a fine film"], "target": ["1"]}},
        {"limits": (15, 8)},
        {"limits": (16, 7)},
        {"change": lambda tokenizer: tokenizer.add_tokens(["dull"])},
    ],
)
def test_any_change_is_noticed(counted, change):
    counted(TEXTS)
    _, seen = counted(**{"texts": TEXTS, **change})
    assert seen > 0


@pytest.mark.parametrize("damage", ["truncated", "a token changed", "empty", "another set's tokens"])
def test_a_damaged_cache_is_made_anew(damage, counted, tmp_path):
    first = counted(TEXTS)[0].to_dict()
    (file,) = (tmp_path / "cache/t5-tensor-lab/tokens").iterdir()
    content = file.read_bytes()
    token = first["input_ids"][0][0].to_bytes(4, "little")
    assert token in content
    damages = {
        "truncated": content[:100],
        "a token changed": content.replace(token, (7).to_bytes(4, "little")),
        "empty": b"",
        "another set's tokens": None,
    }
    if damages[damage] is None:
        counted({"source": ["a dull film", "fine"], "target": ["1", "0"]})
        (other,) = set((tmp_path / "cache/t5-tensor-lab/tokens").iterdir()) - {file}
        damages[damage] = other.read_bytes()
    file.write_bytes(damages[damage])
    again, seen = counted(TEXTS)
    assert seen == 4
    assert again.to_dict() == first


def test_a_cache_with_too_few_rows_is_made_anew(counted, tmp_path):
    more = {"source": [f"film {n}" for n in range(2500)], "target": ["1"] * 2500}
    counted(more)
    (file,) = (tmp_path / "cache/t5-tensor-lab/tokens").iterdir()
    Dataset.from_file(str(file)).select(range(1000)).map(cache_file_name=str(tmp_path / "part.arrow"))
    (tmp_path / "part.arrow").replace(file)
    again, seen = counted(more)
    assert (len(again), seen) == (2500, 5000)


def test_without_a_writable_cache_tokens_are_made_each_time(counted, tmp_path, capsys):
    (tmp_path / "cache").write_text("")
    for _ in range(2):
        _, seen = counted(TEXTS)
        assert seen == 4
    assert "tokens are not cached in" in capsys.readouterr().err
