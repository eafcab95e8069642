"""From the rows of a user's file to sources, targets and tokens, and what is said of what is lost."""

import json

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from common.errors import ConfigError, warn_once
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import get_task
from seq2seq.data.batches import TaskRows, load_split, tokenise
from seq2seq.data.losses import check_alike
from seq2seq.data.verbalizer import Verbalizer, verbalizer_of
from seq2seq.data_config import set_words
from seq2seq.tokens import set_generation_length
from tests.conftest import TINY_RUN
from tests.seq2seq.tickets import TEXTS, tickets, write_csv


def task_of(path, **keys):
    keys = {"source_template": "{text}", **keys}
    return get_task("file", DataTrainingArguments(task_name="file", test_file=str(path), **keys))


def rows_of(path, **keys) -> list[tuple[str, str]]:
    """The sources and targets of a file."""
    return [(row["source"], row["target"]) for row in task_of(path, **keys).examples("test")]


def write(path, *rows: dict):
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(call) -> str:
    with pytest.raises(ConfigError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
def test_the_task_has_the_texts_of_the_file(kind, texts, tmp_path):
    path = tmp_path / f"a.{kind}"
    rows = [{"text": f"<{text}", "label": f"{text}>"} for text in texts]
    if kind == "jsonl":
        write(path, *rows)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert rows_of(path, source_template="{text}{label}") == [(f"<{text}{text}>", f"{text}>".strip()) for text in texts]


def test_all_bad_rows_are_listed_at_once(tmp_path, capsys):
    warn_once.cache_clear()
    path = write_csv(tmp_path / "tickets.csv", tickets(1000))
    message = refused(lambda: rows_of(path, labels=list(TEXTS)))
    assert "28 of 1,000 rows cannot be used: row 64: column label is 'NaN', a missing value by" in message
    assert message.count("; row ") == 19
    assert message.endswith('; and 8 more; mend them, or set on_bad_rows to "skip"')
    for _ in range(2):  # read, and from the cache
        warn_once.cache_clear()
        assert len(rows_of(path, labels="auto", on_bad_rows="skip")) == 972
        assert "28 of 1,000 rows cannot be used: row 64" in capsys.readouterr().err
    huge = write(tmp_path / "a.jsonl", {"text": "a", "label": "x" * 500_000})
    assert len(refused(lambda: rows_of(huge, labels=["a", "b"]))) < 400


def test_a_text_that_stands_for_a_missing_value_can_be_kept(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "None", "label": "a"})
    assert "column text is 'None', a missing value by missing_values" in refused(lambda: rows_of(path))
    assert rows_of(path, missing_values=[]) == [("None", "a")]
    path = write(tmp_path / "a.jsonl", {"text": "a", "label": "None"}, {"text": "b", "label": "some"})
    assert rows_of(path, labels=["None", "some"]) == [("a", "None"), ("b", "some")]


def test_labels_are_found_however_they_are_stored(tmp_path):
    rows = [{"text": "a", "label": 1.0}, {"text": "b", "label": True}, {"text": "c", "label": " Not OK"}]
    path = write(tmp_path / "a.jsonl", *rows)
    assert [label for _, label in rows_of(path, labels=["1", "True", "Not OK"])] == ["1", "True", "Not OK"]
    assert "did you mean 'Not OK'" in refused(
        lambda: rows_of(write(path, {"text": "c", "label": "Not O"}), labels=["Not OK", "OK"])
    )
    assert task_of(write(path, *rows), labels="auto").labels == ["1", "Not OK", "true"]
    assert "only the value 'a'" in refused(
        lambda: task_of(write(path, {"text": "b", "label": "a"}), labels="auto").labels
    )


def test_labels_of_the_training_file_are_those_of_the_test_file(tmp_path):
    train = write(tmp_path / "a.jsonl", *({"text": f"{n}", "label": "ab"[n % 2]} for n in range(40)))
    test = write(tmp_path / "b.jsonl", {"text": "x", "label": "c"})
    task = task_of(test, train_file=str(train), labels="auto")
    assert "row 1: label is 'c'; allowed by labels: a, b" in refused(lambda: task.examples("test"))


@pytest.mark.parametrize(
    ("given", "step", "target"),
    [
        ("3", None, "3"),
        ("-0.25", None, "-0.25"),
        (3.5, None, "3.5"),
        ("+.5", None, "0.5"),
        ("1e2", None, "100"),
        ("-0", None, "0"),
        ("3.14159", 0.2, "3.2"),
        ("-0.04", 0.2, "0.0"),
        ("2.5", 1, "2"),
        ("37", 5, "35"),
        ("0.125", 0.01, "0.12"),
    ],
)
def test_numbers(given, step, target, tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a", "label": given})
    assert rows_of(path, metrics=["pearson"], target_step=step) == [("a", target)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("3.14159", "label is '3.14159', with 5 decimals; set target_step, such as 0.1"),
        ("1_000", "label is '1_000'; it must be a number"),
        ("1,5", "label is '1,5'; it must be a number"),
        ("\u0661", "label is '\u0661'; it must be a number"),
        ("infinity", "label is 'infinity'; it must be a number"),
        (float("nan"), "column label is empty"),
    ],
)
def test_numbers_that_are_none(given, words, tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a", "label": given})
    assert f"row 1: {words}" in refused(lambda: rows_of(path, metrics=["pearson"]))


def test_optional_columns_may_be_empty(tmp_path):
    path = write(
        tmp_path / "a.jsonl", {"text": "sum up", "input": None, "label": "x"}, {"text": "b", "input": "c", "label": "y"}
    )
    template = "{text} input: {input}"
    assert "row 1: column input is empty" in refused(lambda: rows_of(path, source_template=template))
    found = rows_of(path, source_template=template, optional_columns=["input"])
    assert found == [("sum up input: ", "x"), ("b input: c", "y")]
    message = refused(lambda: rows_of(path, source_template=template, optional_columns=["inputs"]))
    assert "optional_columns has 'inputs', which is not in source_template" in message


def test_several_targets_are_all_right(tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": ["a", "b"], "label": ["x", "y"]}, {"text": "c", "label": "z"})
    assert 'column text is a list; set multiple to "join" or "first"' in refused(lambda: rows_of(path))
    for multiple, source in (("join", "a b"), ("first", "a")):
        assert rows_of(path, multiple=multiple) == [(source, "x"), ("c", "z")]
    task = task_of(path, multiple="join")
    references = {name: task.examples("test")[name][:] for name in ("target", "accepted")}
    assert references["accepted"] == [["x", "y"], ["z"]]
    assert task.score(["y", "x"], references) == {"exact": 50.0}
    labelled = task_of(path, multiple="join", labels=["x", "y", "z"])
    assert labelled.score(["y", "x"], references) == {"accuracy": 50.0}


def test_few_different_sources_are_split_or_refused(tmp_path):
    def split(texts: int) -> list[int]:
        path = write(tmp_path / "a.jsonl", *({"text": f"text {n % texts}", "label": "a"} for n in range(600)))
        task = get_task("file", DataTrainingArguments(task_name="file", train_file=str(path), source_template="{text}"))
        return [len(task.examples(part)) for part in ("train", "validation", "test")]

    assert split(6) == [400, 100, 100]
    assert split(3) == [200, 200, 200]
    assert "600 rows have too few different sources to hold some out for validation and test" in refused(
        lambda: split(2)
    )


@pytest.fixture(scope="module")
def lossy():
    """A tokenizer that, like that of T5, knows few characters and no line breaks; and no capitals."""
    pieces = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", -9.0),
        ("\u2581", -2.0),
        *((c, -3.0) for c in "abcdefgh<>/s0123456789"),
    ]
    backend = Tokenizer(models.Unigram(pieces, unk_id=2))
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), normalizers.Replace("\n", " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = __import__("tokenizers").decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


def tokenised(path, tokenizer, **keys) -> TaskRows:
    task = task_of(path, **keys)
    set_words([task], tokenizer, task.arguments, None)
    return tokenise(TaskRows(task, load_split(task, "test", task.arguments, 1, False)), tokenizer, task.arguments)


def test_labels_have_words_that_the_tokenizer_can_say(lossy, tmp_path):
    labels = ["Bad", "Feed Back", "bad", "a longer one of many", "日本", "😡"]
    words = verbalizer_of(labels, lossy, {}, 4).words
    assert words == dict(zip(labels, ["0", "bac", "bad", "a", "1", "2"], strict=True))
    verbalizer = Verbalizer(words)
    assert [verbalizer.label_of(text) for text in ("bac", " 0 ", "what", "Bad")] == [
        "Feed Back",
        "Bad",
        "what",
        "Bad (no word of a label)",
    ]
    path = write(tmp_path / "a.jsonl", *({"text": "a", "label": label} for label in labels))
    rows = tokenised(path, lossy, labels=labels)
    assert rows.texts["target"][:] == labels
    said = [lossy.decode(tokens, skip_special_tokens=True) for tokens in rows.tokens["labels"]]
    assert said == list(words.values())
    chosen = {"Bad": "a", "Feed Back": "b"}
    assert verbalizer_of(["Bad", "Feed Back"], lossy, chosen, 4).words == chosen
    twice = {"Bad": "a", "Feed Back": "a"}
    assert "'Bad' and 'Feed Back' have the same word" in refused(lambda: verbalizer_of(list(twice), lossy, twice, 4))
    assert "becomes 'b'" in refused(lambda: verbalizer_of(["Bad", "Feed Back"], lossy, {"Bad": "B"}, 4))
    many = [f"label {n}" for n in range(10_100)]
    assert "too few distinct words of one to 1 tokens for 10,100 labels" in refused(
        lambda: verbalizer_of(many, lossy, {}, 1)
    )


def test_what_is_lost_is_counted_with_an_example(lossy, tmp_path):
    rows = [
        {"text": "abc" * 7, "label": "ab"},
        {"text": "a~b {c}", "label": "a\nb"},
        {"text": "ab", "label": "ab ~"},
        {"text": "AB", "label": "abcdefgh"},
    ]
    losses = tokenised(write(tmp_path / "a.jsonl", *rows), lossy, max_source_length=12, max_target_length=8).losses
    assert (losses.rows, losses.sources, losses.targets, losses.unknown, losses.alike) == (4, 1, 1, 3, 0)
    assert losses.lines == (
        "1 of 4 rows have more than max_source_length 12 tokens and lose the rest, such as 'abcabcabcabcabcabcabc'",
        "1 of 4 rows have targets of more than max_target_length 8 tokens, such as 'abcdefgh'",
        "1 of 4 rows have characters that the tokenizer does not know (3 in all), such as 'a~b {c}'",
        "1 of 4 rows have targets with characters that the tokenizer does not know, such as 'ab ~'",
        "1 of 2 targets that were looked at change when they are tokenised, such as 'a\\nb' to 'a b'; no answer can "
        "equal them",
    )


def test_rows_that_truncation_makes_alike_are_an_error(tokenizer, tmp_path):
    text = "a long passage " * 20
    rows = [{"text": text, "question": f"what is {n}?", "label": "x"} for n in range(10)]
    path = write(tmp_path / "a.jsonl", *rows)
    keys = {"max_source_length": 20, "source_template": "context: {text} question: {question}"}
    losses = tokenised(path, tokenizer, **keys).losses
    message = refused(lambda: check_alike(losses, "a, train", 20))
    assert "10 of 10 rows become the same tokens as another row" in message
    assert "max_source_length 20; raise it, or move what differs, such as the question, to the front" in message
    keys["source_template"] = "question: {question} context: {text}"
    check_alike(tokenised(path, tokenizer, **keys).losses, "a, train", 20)


def test_special_tokens_in_data_are_text(tokenizer, tmp_path):
    path = write(tmp_path / "a.jsonl", {"text": "a </s> <pad> <extra_id_0> b", "label": "c </s> d"})
    rows = tokenised(path, tokenizer)
    assert tokenizer.decode(rows.tokens[0]["input_ids"], skip_special_tokens=True) == "a </s> <pad> <extra_id_0> b"
    assert tokenizer.decode(rows.tokens[0]["labels"], skip_special_tokens=True) == "c </s> d"
    assert rows.tokens[0]["input_ids"].count(tokenizer.eos_token_id) == 1


def test_generated_texts_must_be_as_long_as_targets(tokenizer, tmp_path):
    rows = {"test": [tokenised(write(tmp_path / "a.jsonl", {"text": "a", "label": "a long answer"}), tokenizer)]}

    class Training:
        predict_with_generate, generation_max_length = True, None

    set_generation_length(Training, rows)
    longest, Training.generation_max_length = Training.generation_max_length, 3
    message = refused(lambda: set_generation_length(Training, rows))
    assert f"generation_max_length is 3, but the longest target has {longest} tokens" in message


def test_a_saved_adapter_keeps_its_words_on_other_files(run_main, tiny_backbone, tmp_path):
    keys = {**TINY_RUN, "model_config": None, "tokenizer_name": None, "model_name_or_path": str(tiny_backbone)}
    keys |= {"task_name": "file", "source_template": "{text}", "use_LoRA": True, "on_bad_rows": "skip"}
    keys |= {"labels": dict.fromkeys(TEXTS) | {label: f"w{n}" for n, label in enumerate(TEXTS)}}
    train = write_csv(tmp_path / "tickets.csv", tickets(150))
    (tmp_path / "a.json").write_text(json.dumps({**keys, "do_train": True, "train_file": str(train)}))
    status, errors, out = run_main(tmp_path / "a.json")
    assert status == 0, errors
    other = {**keys, "labels": "auto", "test_file": str(train), "model_name_or_path": str(out), "do_train": False}
    (tmp_path / "b.json").write_text(json.dumps({**other, "do_eval": False}))
    status, errors, again = run_main(tmp_path / "b.json", output_dir=str(tmp_path / "again"))
    assert status == 0, errors
    results = json.loads((again / "results.json").read_text())["splits"]["test"]["tasks"]["file"]
    assert results["data"]["name"] == "tickets"
    assert [entry["label"] for entry in results["classes"]] == list(TEXTS)
    assert json.loads((out / "data_config.json").read_text())["words"]["file"] == {
        label: f"w{n}" for n, label in enumerate(TEXTS)
    }
