import dataclasses
import json
import random
import re
import shutil
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from common.errors import ConfigError
from seq2seq import pipeline, precision, sentence_encoder
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import distillation, get_task
from seq2seq.data.decoder_distillation import QUESTIONS, ROWS, TARGETS, DecoderDistillation
from seq2seq.data.distillation import CODE_WEIGHT, PREFIXES, Distillation, random_signs
from seq2seq.data.vader import read_set
from seq2seq.initial_weights import TRACE
from seq2seq.pretraining import train_tokenizer
from seq2seq.sentence_encoder import WORD, Projection, means, tokens_of_words, word_numbers, word_vectors
from tests.conftest import TINY_RUN
from third_party.models.t5 import T5ForConditionalGeneration

TEXTS = ["A fine film, isn't it?", "No.", "", "It lasts 90 minutes and is utterly forgettable."]


def states_of(text: str) -> torch.Tensor:
    """Return random states of the text's words, the same each time."""
    generator = torch.Generator().manual_seed(zlib.crc32(text.encode()))
    return torch.randn(len(sentence_encoder.WORD.findall(text)), 768, generator=generator) + 2.0


@pytest.fixture
def teacher(monkeypatch, tmp_path):
    """A teacher without a download: random states of the right shape."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sentence_encoder, "word_states", lambda texts: [states_of(text) for text in texts])
    monkeypatch.setattr(distillation, "rated_sentences", lambda split: {split: TEXTS})


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(read_set("amazon")[0], 700)


@pytest.fixture
def model(tiny_config, tokenizer):
    tiny_config.vocab_size = len(tokenizer)
    return T5ForConditionalGeneration(tiny_config)


@pytest.fixture
def shares():
    """The key decoder_targets."""


@pytest.fixture
def task(teacher, shares):
    task = DecoderDistillation(DataTrainingArguments(decoder_targets=shares))
    task.numbers = {text: number for number, text in enumerate(TEXTS)}
    return task


@pytest.fixture
def collator(task, tokenizer, model):
    return task.collator(tokenizer, model)


def rows(tokenizer) -> list[dict]:
    sources = [PREFIXES[0] + text for text in TEXTS]
    return [
        {"sentence": text, "number": n, "input_ids": tokenizer(source)["input_ids"]}
        for n, (text, source) in enumerate(zip(TEXTS, sources, strict=True))
    ]


def test_similar_words_are_those_with_the_nearest_embeddings(monkeypatch):
    words = ["good", "fine", "bad", "film", "movie", "of", "##ly", "[PAD]", "café"]
    embedding = torch.nn.Embedding.from_pretrained(torch.eye(9, 8) + torch.eye(9, 8).roll(-1, 1) * 0.1)
    with torch.no_grad():
        embedding.weight[:5] = torch.tensor([[3.0, 0.1], [3, 0.2], [3, -1], [-3, 1], [-3, 0.9]]) @ torch.eye(2, 8)
    tokenizer = SimpleNamespace(get_vocab=lambda: {word: n for n, word in enumerate(words)})
    model = SimpleNamespace(get_input_embeddings=lambda: embedding)
    monkeypatch.setattr(sentence_encoder, "load_encoder", lambda *_: (tokenizer, model))
    monkeypatch.setattr(sentence_encoder, "SIMILAR", 2)
    similar = sentence_encoder.similar_words.__wrapped__()
    assert sorted(similar) == ["bad", "film", "fine", "good", "movie"]
    assert {word: similar[word][0] for word in ("good", "fine", "film", "movie")} == {
        "good": "fine",
        "fine": "good",
        "film": "movie",
        "movie": "film",
    }
    assert similar["good"] == ["fine", "bad"]


@pytest.mark.parametrize(("seconds", "dtype"), [((1.0, 6.0), torch.float32), ((1.0, 0.4), torch.bfloat16)])
def test_the_teacher_computes_in_what_the_cpu_is_fast_in(monkeypatch, seconds, dtype):
    times = dict(zip((torch.float32, torch.bfloat16), seconds, strict=True))
    monkeypatch.setattr(precision, "_seconds", times.get)
    monkeypatch.setattr(sentence_encoder, "bfloat16_slowdown", precision.bfloat16_slowdown.__wrapped__)
    asked = []
    monkeypatch.setattr(sentence_encoder, "load_encoder", lambda dtype: asked.append(dtype) or exit())
    with pytest.raises(SystemExit):
        sentence_encoder.word_states(TEXTS)
    assert asked == [dtype]


def test_tokens_of_words():
    """The teacher does not split "mp3" or 90: each of their words has the whole token. The last one is cut off."""
    text = "My mp3 lasts 90 minutes."
    offsets = np.array([[0, 2], [3, 6], [7, 11], [11, 12], [13, 15], [16, 23], [0, 0]])
    assert WORD.findall(text) == ["My", "mp", "3", "lasts", "9", "0", "minutes", "."]
    tokens, words = tokens_of_words(text, offsets)
    assert list(zip(tokens, words, strict=True)) == [(0, 0), (1, 1), (1, 2), (2, 3), (3, 3), (4, 4), (4, 5), (5, 6)]
    assert len(tokens_of_words("", np.zeros((2, 2), int))[0]) == 0


def test_words_of_tokens():
    text = "don't 42!"
    offsets = np.array([[0, 2], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7], [7, 8], [8, 9], [0, 0]])
    assert word_numbers(text, offsets).tolist() == [0, 0, 1, 2, -1, 3, 4, 5, -1]


def test_means_of_groups():
    vectors = torch.tensor([[1.0, 2], [3, 4], [5, 6]])
    assert torch.equal(means(vectors, torch.tensor([2, 0, 2]), 3), torch.tensor([[3.0, 4], [0, 0], [3, 4]]))


def test_a_projection_standardises_and_rotates(teacher):
    texts = [f"some words of sentence {n} here and there" for n in range(200)]
    fitted = Projection.of(texts, 5)
    components = fitted(torch.cat([states_of(text) for text in texts]))
    assert components.shape[1] == 5
    assert components.mean(0).abs().max() < 1e-4
    assert components.square().mean() == pytest.approx(1, abs=1e-4)
    largest = fitted.directions.abs().argmax(0)
    assert (fitted.directions[largest, range(5)] > 0).all()
    covariance = torch.cov(components.T)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3 * covariance.diag().max()
    assert (covariance.diag().diff() < 1e-5).all()
    sentences = torch.stack([fitted(states_of(text)).mean(0) for text in texts])
    torch.testing.assert_close(fitted.sentence_deviation, sentences.std(0), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(fitted.sentence_mean, sentences.mean(0), rtol=1e-3, atol=1e-4)


def test_word_vectors_are_computed_once(teacher, monkeypatch):
    project = sentence_encoder.projection(TEXTS, 8)
    first = word_vectors(TEXTS, project)
    monkeypatch.setattr(sentence_encoder, "word_states", None)
    again = word_vectors(TEXTS, sentence_encoder.projection(TEXTS, 8))
    for number, text in enumerate(TEXTS):
        assert np.array_equal(first[number], again[number])
        expected = project(states_of(text)).half().numpy()
        assert np.array_equal(first[number], expected)


def test_an_interrupted_computation_leaves_nothing(teacher, monkeypatch, tmp_path):
    def interrupted(texts):
        raise KeyboardInterrupt

    project = sentence_encoder.projection(TEXTS, 8)
    before = sorted(tmp_path.rglob("*.*"))
    monkeypatch.setattr(sentence_encoder, "word_states", interrupted)
    with pytest.raises(KeyboardInterrupt):
        word_vectors(TEXTS, project)
    assert sorted(tmp_path.rglob("*.*")) == before


def test_a_cache_that_cannot_be_written(teacher, monkeypatch, tmp_path):
    project = sentence_encoder.projection(TEXTS, 8)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=100))
        with pytest.raises(ConfigError, match=r"^XDG_CACHE_HOME: .* cannot be written: No space left .* MiB are free"):
            word_vectors(TEXTS, project)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"^XDG_CACHE_HOME: .* cannot be written: "):
        sentence_encoder.projection(TEXTS, 8)


def test_the_projection_does_not_depend_on_what_a_run_reads(teacher):
    tasks = [DecoderDistillation(DataTrainingArguments()) for _ in range(2)]
    for task, texts in zip(tasks, (TEXTS[:1], TEXTS[::-1]), strict=True):
        task.numbers = {text: number for number, text in enumerate(texts)}
        task.load_teacher()
    assert torch.equal(*(task.projection.directions for task in tasks))
    assert np.array_equal(tasks[0].vectors[0], tasks[1].vectors[3])


def test_batches_for_the_encoder_alone(task, tokenizer, model):
    """The sentences, with the same words as where the decoder is asked; then rows of random signs, without any."""
    torch.manual_seed(0)
    batch = Distillation.collator(task, tokenizer, model)(rows(tokenizer) * 4)
    assert (batch["labels"] == tokenizer.eos_token_id).all()
    assert batch["labels"].shape == (18, 1)
    sources = tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    assert all(source.endswith(text) for source, text in zip(sources, TEXTS * 4, strict=False))
    assert all(0 < len(source) <= 32 for source in sources[16:])
    assert (batch["word"][16:] == -1).all()
    assert batch["sentence_of_word"].tolist() == [
        n for n, text in enumerate(TEXTS * 4) for _ in sentence_encoder.WORD.findall(text)
    ]


@pytest.mark.parametrize("shares", [{name: 1} for name in TARGETS])
@pytest.mark.parametrize("kind", [Distillation, DecoderDistillation])
def test_an_epoch_may_end_with_a_batch_of_one_row(task, tokenizer, model, kind):
    assert kind.collator(task, tokenizer, model)(rows(tokenizer)[:1])["input_ids"].shape[1] > 1


def test_batches_that_ask(task, collator, tokenizer):
    torch.manual_seed(0)
    questions = tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100 - QUESTIONS, 100)])
    digits = tokenizer.convert_tokens_to_ids(["0", "1"])
    for _ in range(20):
        batch = collator.answers(rows(tokenizer))
        assert batch["labels"].shape == (len(TEXTS), 1)
        for row, text in enumerate(TEXTS):
            number = questions.index(batch["input_ids"][row, 0])
            states = states_of(text)
            above = len(states) > 0 and task.projection(states).mean(0)[number] > task.projection.sentence_mean[number]
            assert batch["labels"][row, 0] == digits[bool(above)]
            source = tokenizer.decode(batch["input_ids"][row, 1:], skip_special_tokens=True)
            assert source in [prefix + text for prefix in PREFIXES]


def test_vectors_belong_to_the_words_of_the_tokens(collator, tokenizer):
    torch.manual_seed(1)
    batch = collator.answers(rows(tokenizer))
    seen = 0
    for row, text in enumerate(TEXTS):
        expected = sentence_encoder.WORD.findall(text)
        first = seen
        for word in expected:
            tokens = batch["input_ids"][row][batch["word"][row] == seen]
            assert tokenizer.decode(tokens).strip() == word
            assert batch["sentence_of_word"][seen] == row
            seen += 1
        stored = torch.from_numpy(np.array(collator.vectors[row])).float()
        assert torch.equal(batch["vector"][first:seen], stored)
    assert len(batch["vector"]) == seen == batch["word"].max() + 1


def test_batches_that_copy(collator, tokenizer):
    torch.manual_seed(0)
    batch = collator.copies(rows(tokenizer) * 4)
    copied = 0
    for row in range(len(TEXTS) * 4):
        source = batch["input_ids"][row][batch["attention_mask"][row] == 1]
        assert torch.equal(source, batch["labels"][row][batch["labels"][row] != -100])
        text = tokenizer.decode(source, skip_special_tokens=True)
        original = text == TEXTS[row % len(TEXTS)]
        copied += original
        assert (batch["word"][row] >= 0).any() == (original and text != "")
    assert 3 < copied < 13


def test_batches_of_spans_have_no_words(collator, tokenizer):
    batch = collator.spans(rows(tokenizer))
    assert (batch["word"] == -1).all()
    assert len(batch["vector"]) == 0
    assert (batch["labels"] != -100).any()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"answers": 14, "spans": 1, "copies": 5}, (0.05, 0.25, 0.7)),
        (None, (1 / 3, 1 / 3, 1 / 3)),
        ({"copies": 1e-9}, (0, 1, 0)),
    ],
)
def test_each_objective_is_drawn(collator, tokenizer, monkeypatch, shares, expected):
    torch.manual_seed(0)
    drawn = []
    for name in TARGETS:
        monkeypatch.setattr(collator, name, lambda rows, name=name: drawn.append(name))
    for number in range(1000):
        collator(random.Random(number).choices(rows(tokenizer), k=16))
    for name, share in zip(("spans", "copies", "answers"), expected, strict=True):
        assert drawn.count(name) / 1000 == pytest.approx(share, abs=0.04)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "decoder_targets: it is empty; allowed: spans, copies, answers"),
        ({"copy": 1}, "decoder_targets: 'copy' is unknown; allowed: spans, copies, answers"),
        ({"copies": 0}, "decoder_targets: copies is 0; it must be a number above 0, at most 1000"),
        ({"copies": "all"}, "decoder_targets: copies is 'all'; it must be a number above 0, at most 1000"),
        ({"copies": True}, "decoder_targets: copies is True; it must be a number above 0, at most 1000"),
        ({"copies": float("nan")}, "decoder_targets: copies is nan; it must be a number above 0, at most 1000"),
    ],
)
def test_wrong_decoder_targets(shares, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        DecoderDistillation(DataTrainingArguments(decoder_targets=shares))


@pytest.mark.parametrize(
    ("shares", "share"), [({"spans": 1}, 1 / ROWS), ({"copies": 1}, 1 / ROWS), ({"answers": 1}, 1)]
)
def test_objectives_with_long_targets_use_a_part_of_the_rows(collator, tokenizer, share):
    batch = collator(rows(tokenizer) * ROWS)
    assert {len(batch[name]) for name in ("input_ids", "labels", "word")} == {share * len(TEXTS) * ROWS}


@pytest.mark.parametrize("shares", [{"spans": 1}, {"copies": 1}, {"answers": 1}])
def test_batches_depend_on_their_rows_only(collator, tokenizer, shares):
    """A resumed run collates its first batch before the state of the generator is read from the checkpoint."""
    given, others = rows(tokenizer) * ROWS, rows(tokenizer)[::-1] * ROWS
    torch.manual_seed(0)
    first, after = collator(given), torch.rand(())
    torch.manual_seed(1)
    assert not torch.equal(collator(others)["input_ids"], first["input_ids"])
    again = collator(given)
    assert all(torch.equal(again[name], first[name]) for name in first)
    torch.manual_seed(0)
    assert torch.rand(()) == after


def test_random_signs_are_printable():
    torch.manual_seed(0)
    texts = [random_signs() for _ in range(300)]
    assert {len(text) for text in texts} == set(range(1, 33))
    assert len(set("".join(texts))) == 95


def loss_of(task, states, batch) -> torch.Tensor:
    outputs = type("Outputs", (), {"encoder_last_hidden_state": states})
    return task.auxiliary_loss(outputs, batch, {name: batch[name] for name in task.batch_fields})


def test_the_loss_compares_words_and_sentences(task, collator, tokenizer):
    """By a loop over words, and over sentences."""
    torch.manual_seed(0)
    batch = collator.answers(rows(tokenizer))
    states = torch.randn(*batch["input_ids"].shape, 32)
    of_words, learned, wanted = [], {}, {}
    for word in range(len(batch["vector"])):
        row, target = int(batch["sentence_of_word"][word]), batch["vector"][word, :32]
        mean = states[row][batch["word"][row] == word].mean(0)
        of_words.append((mean - target).square().mean())
        learned.setdefault(row, []).append(mean)
        wanted.setdefault(row, []).append(target)
    deviation = task.projection.sentence_deviation[:32]
    difference = [torch.stack(learned[row]).mean(0) - torch.stack(wanted[row]).mean(0) for row in learned]
    expected = torch.stack(of_words).mean() + (torch.stack(difference) / deviation).square().mean()
    assert loss_of(task, states, batch).item() == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize("traces", [1, 2])
def test_what_the_teacher_leaves_free_tells_tokens_apart(task, collator, tokenizer, model, traces):
    """By a loop over tokens: the code of each, and traces of those before; before the first there are starts."""
    torch.manual_seed(0)
    task.vectors, task.traces = dataclasses.replace(task.vectors, vectors=task.vectors.vectors[:, :24]), traces
    batch = collator.complete(collator.batch([([5, 6, 7, 1], [1]), ([8, 1], [1])]), [])
    states, codes, errors = torch.randn(2, 4, 32), model.shared.weight[:, 24:].tolist(), []
    for row, tokens in enumerate(([0, 0, 5, 6, 7, 1], [0, 0, 8, 1])):
        for place in range(len(tokens) - 2):
            second, first, own = (codes[token] for token in tokens[place : place + 3])
            for n in range(8):
                wanted = own[n] + TRACE * first[n - 1] + (TRACE * second[n - 2] if traces == 2 else 0)
                errors.append((states[row, place, 24 + n].item() - wanted) ** 2)
    expected = CODE_WEIGHT * sum(errors) / len(errors)
    assert loss_of(task, states, batch).item() == pytest.approx(expected, rel=1e-4)


def test_without_words_there_is_no_loss(task, collator, tokenizer):
    batch = collator.complete(collator.batch([([5, 6, 1], [7, 1])]), [])
    assert loss_of(task, torch.randn(1, 3, 32), batch) == 0


def test_a_run_weights_the_token_loss_and_adds_the_auxiliary_loss(run_main, teacher, monkeypatch):
    original = Distillation.auxiliary_loss
    monkeypatch.setattr(Distillation, "auxiliary_loss", lambda *given: 1e6 + original(*given))
    monkeypatch.setattr(Distillation, "token_weight", 1e4)
    keys = {**TINY_RUN, "task_name": Distillation.name, "text_sources": {"rated": 1}}
    monkeypatch.setattr(pipeline, "bfloat16_slowdown", lambda: 6.6)
    monkeypatch.setattr(distillation, "rated_sentences", lambda split: {split: read_set("movie")[0][:300]})
    status, errors, out = run_main("configs/pretrain/t5_nano_encoder.json", **keys, initial_embedding=None)
    assert status == 0, errors
    assert any("bf16: this CPU takes longer for it than for float32; set it to false" in line for line in errors)
    validation = json.loads((out / "results.json").read_text())["splits"]["validation"]
    # Beside the million: two mean squared errors, and 10,000 times a cross-entropy: 9 for a random model, then less.
    assert 1.02e6 < validation["tasks"][Distillation.name]["scores"]["loss"] < 1.12e6


def test_rows_are_numbered_across_splits():
    task = get_task(Distillation.name)
    parts = [task.examples(split, True, lambda rows: rows.select(range(5))) for split in ("train", "validation")]
    assert [list(part["number"]) for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert list(task.numbers) == [*parts[0]["sentence"], *parts[1]["sentence"]]
