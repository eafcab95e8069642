"""The splits of the published tasks, where a local copy of them may lie, and one line for what is wrong with it."""

from collections import Counter

import pytest

from common.errors import ConfigError, warn_once
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import SPLITS, get_task
from tests.seq2seq.published_rows import GOLDEN, WRITERS, local_task, numbered

HALVED = ("cola", "mrpc", "rte", "stsb", "wnli", "superglue-boolq", "superglue-cb", "superglue-copa", "superglue-rte")
HALVED += ("superglue-wic", "superglue-wsc.fixed")
HELD_OUT = ("qqp", "qnli", "sst2", "squad", "superglue-record")


@pytest.mark.parametrize("name", HALVED)
def test_the_published_validation_set_is_halved(tmp_path, name):
    train, validation = numbered(name, 7), numbered(name, 9, start=100)
    task = local_task(tmp_path, name, train, validation, "csv")
    parts = {split: list(task.examples(split)["source"]) for split in SPLITS}
    assert [len(part) for part in parts.values()] == [7, 4, 5]
    assert len(set().union(*parts.values())) == 16
    assert parts == {split: list(task.examples(split)["source"]) for split in SPLITS}
    other = local_task(tmp_path, name, train, validation, "csv", seed=1)
    assert list(other.examples("train")["source"]) == parts["train"]
    assert list(other.examples("test")["source"]) != parts["test"]


@pytest.mark.parametrize(("name", "count", "held_out"), [(name, 40, 4) for name in HELD_OUT] + [("sst2", 2500, 1000)])
def test_training_rows_are_held_out(tmp_path, capsys, name, count, held_out):
    warn_once.cache_clear()
    train, validation = numbered(name, count), numbered(name, 9, start=5000)
    task = local_task(tmp_path, name, train, validation)
    parts = {split: list(task.examples(split)["source"]) for split in SPLITS}
    kept = parts["train"] if name != "superglue-record" else parts["train"][::2]  # a query's two answers
    assert [len(kept), len(parts["validation"]), len(parts["test"])] == [count - held_out, held_out, 9]
    assert len(set(kept) | set(parts["validation"])) == count
    assert not set().union(kept, parts["validation"]) & set(parts["test"])
    assert parts["validation"] == list(task.examples("validation")["source"])
    other = local_task(tmp_path, name, train, validation, seed=1)
    assert list(other.examples("validation")["source"]) != parts["validation"]
    warned = f"{name}: {held_out} of {count} training rows are held out for validation, not 1,000"
    assert capsys.readouterr().err.count(warned) == (count < 2000)


def test_mnli_validates_on_other_texts_than_it_tests_on(tmp_path):
    folder = tmp_path / "mnli"
    folder.mkdir()
    for split in ("train", "validation_matched", "validation_mismatched"):
        WRITERS["parquet"]([{**GOLDEN["mnli"][0], "premise": split}], folder / f"{split}-00000-of-00001.parquet")
    task = get_task("mnli", DataTrainingArguments(data_dir=str(tmp_path)))
    premises = [task.examples(split)[0]["source"].split()[2] for split in SPLITS]
    assert premises == ["train", "validation_mismatched", "validation_matched"]


def test_no_question_of_multirc_is_cut(tmp_path):
    rows = []
    for question in range(20):
        for answer in range(1 + question % 4):
            row, *_ = GOLDEN["superglue-multirc"]
            numbers = {"paragraph": question // 5, "question": question, "answer": answer}
            rows.append({**row, "answer": f"{question} {answer}", "idx": numbers})
    task = local_task(tmp_path, "superglue-multirc", rows[:1], rows, "csv")
    parts = [Counter(task.examples(split)["idx"]) for split in ("validation", "test")]
    assert [len(part) for part in parts] == [10, 10]
    assert not set(parts[0]) & set(parts[1])
    assert parts[0] + parts[1] == Counter(row["idx"]["question"] for row in rows)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["cola", "stsb", "squad"])
def test_rows_without_a_label_are_left_out(tmp_path, capsys, name, kind):
    warn_once.cache_clear()
    field, none = ("answers", {"text": [], "answer_start": []}) if name == "squad" else ("label", -1)
    rows = numbered(name, 6)
    rows[1], rows[4] = {**rows[1], field: none}, {**rows[4], field: None}
    task = local_task(tmp_path, name, rows, rows, kind)
    capsys.readouterr()  # writing parquet shows its progress
    assert len(task.published("train")) == 4
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"train.{kind}: 2 rows without {field} are skipped" in lines[0]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("mrpc", {"label": 2}, ["train.jsonl, row 1", "label is 2; mrpc allows 0 to 1"]),
        ("mrpc", {"label": "yes"}, ["row 1", "label is 'yes'"]),
        ("superglue-cb", {"label": 0.5}, ["label is 0.5", "0 to 2"]),
        ("stsb", {"label": 5.2}, ["label is 5.2; stsb allows 0 to 5"]),
        ("stsb", {"label": float("nan")}, ["label is nan"]),
        ("mrpc", {"sentence2": None}, ["column sentence2, row 1 is None", "must be a string"]),
        ("superglue-multirc", {"idx": {"question": None}}, ["row 1: column idx is", "must be like"]),
        ("superglue-record", {"entities": "Ann, Bob"}, ["row 1: column entities is 'Ann, Bob'", '["one", "another"]']),
        ("superglue-wsc.fixed", {"span1_index": "first"}, ["row 1: column span1_index is 'first'"]),
        ("squad", {"answers": ["seven"]}, ["row 1: column answers is", '{"text": ["an answer"]}']),
    ],
)
def test_a_bad_cell_is_one_line(tmp_path, name, change, words):
    row, *_ = GOLDEN[name]
    task = local_task(tmp_path, name, [{**row, **change}])
    check_error(lambda: task.examples("train"), words)


def test_errors_name_the_row_or_the_column(tmp_path):
    row, *_ = GOLDEN["mrpc"]
    task = local_task(tmp_path, "mrpc", [row, row, {**row, "label": 3}])
    check_error(lambda: task.examples("train"), ["train.jsonl, row 3: label is 3"])
    task = local_task(tmp_path, "mrpc", [row, {**row, "label": "1"}])
    check_error(lambda: task.examples("train"), ["train.jsonl: column label has values of different types"])


def test_a_csv_with_other_labels_or_columns_is_one_line(tmp_path):
    row, *_ = GOLDEN["mrpc"]
    task = local_task(tmp_path, "mrpc", [{**row, "label": "alike"}], kind="csv")
    check_error(lambda: task.examples("train"), ["row 1: label is 'alike'", "0 to 1 or not_equivalent, equivalent"])
    task = local_task(tmp_path, "mrpc", [{"sentence1": "a", "sentence": "b", "label": 0}], kind="csv")
    check_error(lambda: task.examples("train"), ["train.csv has no column sentence2", "sentence1, sentence, label"])


def check_error(call, words):
    with pytest.raises(ConfigError) as error:
        call()
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize("folder", ["glue/rte", "rte", "."])
def test_where_a_local_copy_may_lie(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    row, *_ = GOLDEN["rte"]
    for part in range(2):
        rows = [{**row, "sentence1": f"part {part}"}]
        WRITERS["parquet"](rows, tmp_path / folder / f"train-0000{part}-of-00002.parquet")
    task = get_task("rte", DataTrainingArguments(data_dir=str(tmp_path)))
    sources = list(task.examples("train")["source"])
    assert [source.split(" sentence2")[0] for source in sources] == ["rte sentence1: part 0", "rte sentence1: part 1"]


def test_a_missing_part_is_noticed(tmp_path):
    WRITERS["parquet"]([GOLDEN["rte"][0]], tmp_path / "train-00001-of-00003.parquet")
    task = get_task("rte", DataTrainingArguments(data_dir=str(tmp_path)))
    check_error(lambda: task.examples("train"), ["holds 1 of the 3 files train-*.parquet"])


def test_files_of_one_task_are_not_taken_for_those_of_another(tmp_path):
    """mrpc, rte and wnli have the same columns."""
    (tmp_path / "mrpc").mkdir()
    for split in ("train", "validation"):
        WRITERS["parquet"]([GOLDEN["mrpc"][0]], tmp_path / f"mrpc/{split}-0.parquet")
    both = DataTrainingArguments(data_dir=str(tmp_path / "mrpc"), task_name=["mrpc", "rte"])
    assert len(get_task("mrpc", both).examples("train")) == 1
    check_error(lambda: get_task("rte", both).examples("train"), ["without a directory rte"])


def test_a_folder_of_the_task_goes_before_files_in_data_dir(tmp_path):
    row, *_ = GOLDEN["rte"]
    WRITERS["csv"]([row], tmp_path / "validation.csv")
    (tmp_path / "rte").mkdir()
    task = get_task("rte", DataTrainingArguments(data_dir=str(tmp_path)))
    check_error(lambda: task.examples("test"), ["rte holds no validation-*.parquet, validation/*.parquet or val"])


def test_parts_that_do_not_fit_together_are_one_line(tmp_path):
    row, *_ = GOLDEN["rte"]
    WRITERS["parquet"]([row], tmp_path / "train-0.parquet")
    WRITERS["parquet"]([{**row, "label": "one"}], tmp_path / "train-1.parquet")
    task = get_task("rte", DataTrainingArguments(data_dir=str(tmp_path)))
    check_error(lambda: task.examples("train"), ["train-*.parquet do not fit together"])
