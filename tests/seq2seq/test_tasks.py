"""The 18 published tasks: their texts, labels and scores."""

from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest

from common.errors import ConfigError
from seq2seq.data import get_task
from seq2seq.data.superglue import join_highlights
from tests.seq2seq.published_rows import GOLDEN, WRITERS, WSC, local_task


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("style", ["digits", "words"])
@pytest.mark.parametrize("kind", WRITERS)
def test_texts_are_the_same_from_every_kind_of_file(tmp_path, name, style, kind):
    row, source, *targets = GOLDEN[name]
    task = local_task(tmp_path, name, [row, row], kind=kind, label_style=style)
    example = task.examples("test")[0]
    assert example["source"] == f"{name} {source}"
    assert example["target"] == targets[style == "words"]
    assert set(example) == {"source", "target", *task.reference_fields}
    assert task.examples("test", prefix=False)[0]["source"] == source


def test_words_are_in_the_hubs_order():
    words = {name: get_task(name).words for name in GOLDEN}
    assert words["superglue-cb"] == ("entailment", "contradiction", "neutral")
    assert words["mnli"] == ("entailment", "neutral", "contradiction")
    assert words["qnli"] == words["rte"] == words["superglue-rte"] == ("entailment", "not_entailment")
    assert words["wnli"] == ("not_entailment", "entailment")
    assert words["cola"] == ("unacceptable", "acceptable")
    assert words["sst2"] == ("negative", "positive")
    assert words["mrpc"] == ("not_equivalent", "equivalent")
    assert words["qqp"] == ("not_duplicate", "duplicate")
    assert words["superglue-copa"] == ("choice1", "choice2")
    for name in ("boolq", "multirc", "wic", "wsc.fixed"):
        assert words[f"superglue-{name}"] == ("False", "True")
    assert [name for name in words if words[name] is None] == ["stsb", "superglue-record", "squad"]
    for name in GOLDEN:
        assert len(get_task(name).words or ()) == len(get_task(name).labels or ())


def test_metrics():
    of = {name: tuple(get_task(name).metrics) for name in GOLDEN}
    two = {name for name, metrics in of.items() if metrics == ("f1", "accuracy")}
    assert two == {"mrpc", "qqp"}
    assert of["cola"] == ("matthews_correlation",)
    assert of["stsb"] == ("pearson", "spearmanr")
    assert of["superglue-cb"] == ("f1_multiclass", "accuracy")
    assert of["squad"] == of["superglue-record"] == of["superglue-multirc"] == ("f1", "em")
    assert sum(metrics == ("accuracy",) for metrics in of.values()) == 18 - 8


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ((0, "Anna"), (2, "Mia"), "* Anna * thanked # Mia #, because she had helped Anna's dog."),
        ((4, "she"), (0, "Anna"), "# Anna # thanked Mia, because * she * had helped Anna's dog."),
        ((7, "Anna"), (8, "dog"), "Anna thanked Mia, because she had helped * Anna *'s # dog #."),
        ((7, "Anna's dog"), (4, "she"), "Anna thanked Mia, because # she # had helped * Anna's dog *."),
        ((0, "anna"), (8, "dog"), "* Anna * thanked Mia, because she had helped Anna's # dog #."),
    ],
)
def test_spans_are_marked(first, second, text):
    row = {**WSC, "span1_index": first[0], "span1_text": first[1], "span2_index": second[0], "span2_text": second[1]}
    assert get_task("superglue-wsc.fixed").format(row)[0] == f"text: {text}"


def test_a_span_outside_the_text_is_an_error():
    row = {**WSC, "span1_index": 9, "span1_text": "dog", "span2_index": 0, "span2_text": "Anna"}
    with pytest.raises(ConfigError, match="has no words 9 to 9 for the span 'dog'"):
        get_task("superglue-wsc.fixed").format(row)


@pytest.mark.parametrize("tenths", range(51))
def test_similarity_is_rounded_in_float32(tenths):
    """Independently: float32 times 5, rounded to float32 (in decimals), half to even."""
    label = np.float32(tenths / 10)
    fifths = Decimal(str(np.multiply(label, np.float32(5), dtype=np.float32)))
    expected = f"{int(fifths.to_integral_value(ROUND_HALF_EVEN)) / 5:.1f}"
    for given in (float(label), str(tenths / 10), tenths / 10):
        assert get_task("stsb").format({"sentence1": "a", "sentence2": "b", "label": given})[1] == expected


def test_similarities_that_go_wrong_otherwise():
    format_ = get_task("stsb").format
    wanted = {3.5: "3.6", 3.7: "3.6", 0.1: "0.0", 2.3: "2.4", 4.9: "4.8", 5.0: "5.0"}
    assert {x: format_({"sentence1": "", "sentence2": "", "label": float(np.float32(x))})[1] for x in wanted} == wanted


@pytest.mark.parametrize(
    ("passage", "joined"),
    [
        ("One.\n@highlight\nTwo!\n@highlight\nThree", "One. Two! Three"),
        ('"One"\n@highlight\nTwo', '"One" Two'),
        ("No highlight\nhere", "No highlight here"),
        ("One\n@highlight\n", "One."),
        ("@highlight\nOne", "One"),
    ],
)
def test_highlights_become_sentences(passage, joined):
    assert join_highlights(passage) == joined


def test_multirc_scores_questions():
    references = {"target": ["1", "0", "1", "0"], "idx": [5, 5, 6, 6]}
    scores = get_task("superglue-multirc").score(["1", "0", "0", "maybe"], references)
    assert scores == {"f1": pytest.approx(100 * 2 / (2 + 1 + 1)), "em": 50.0}


def test_record_trains_on_every_answer_and_scores_each_query_once(tmp_path):
    row, *_ = GOLDEN["superglue-record"]
    task = local_task(tmp_path, "superglue-record", [row, {**row, "query": "other"}], kind="parquet")
    assert list(task.examples("train")["target"]) == ["Ann", "Ann Lee"]
    test = task.examples("test")
    assert list(test["target"]) == ["Ann", "Ann"]
    assert test["answers"][:] == [["Ann", "Ann Lee"]] * 2
    scores = task.score(["ann lee", "Lee"], {"target": test["target"], "answers": test["answers"]})
    assert scores == {"f1": pytest.approx(100 * (1 + 2 / 3) / 2), "em": 50.0}


def test_squad_is_scored_against_all_answers():
    references = {"target": ["seven", "x"], "answers": [["seven", "the 7 hills"], ["x"]]}
    assert get_task("squad").score(["7 hills!", ""], references) == {"f1": 50.0, "em": 50.0}
