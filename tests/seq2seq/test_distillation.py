import json

import pytest
import torch

from seq2seq.data import distillation, get_task
from seq2seq.data.distillation import ASKED, QUESTIONS, DistillationCollator
from tests.conftest import TINY_RUN
from third_party.models.t5 import T5ForConditionalGeneration

TASK = get_task("span-corruption+distillation")


@pytest.fixture
def model(tiny_config, tokenizer):
    tiny_config.vocab_size = len(tokenizer)
    return T5ForConditionalGeneration(tiny_config)


def row(length: int, vector) -> dict:
    return {"input_ids": [*range(300, 300 + length), 1], "labels": [1], "vector": vector}


def test_most_rows_are_asked_about_their_vector(tokenizer, model):
    torch.manual_seed(0)
    vector = torch.randn(384).tolist()
    collator = DistillationCollator(tokenizer, model)
    pairs = [collator.pair(row(20, vector)) for _ in range(200)]
    asked = [target for source, target in pairs if source == row(20, vector)["input_ids"]]
    assert 110 < len(asked) < 160
    seen = set()
    for target in asked:
        words = tokenizer.convert_ids_to_tokens(target)
        assert len(words) == 2 * ASKED + 1
        assert words[-1] == "</s>"
        for question, answer in zip(words[:-1:2], words[1::2], strict=True):
            number = int(question[len("<extra_id_") : -1]) - (100 - QUESTIONS)
            assert answer == ("1" if vector[number] > 0 else "0")
            seen.add(number)
    assert seen == set(range(QUESTIONS))


def test_questions_are_read_but_not_predicted(tokenizer, model):
    torch.manual_seed(0)
    batch = DistillationCollator(tokenizer, model)([row(9 + n, [1.0] * 384) for n in range(20)])
    read, predicted = batch["decoder_input_ids"], batch["labels"]
    questions = torch.tensor(tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(68, 100)]))
    assert torch.isin(read, questions).any()
    assert not torch.isin(predicted, questions).any()
    known = predicted[:, :-1] != -100
    assert torch.equal(read[:, 1:][known], predicted[:, :-1][known])
    answered = torch.isin(read, questions)
    assert (predicted[answered] == tokenizer.convert_tokens_to_ids("1")).all()
    assert batch["vector"].shape == (20, 384)


def test_the_loss_follows_the_mean_of_the_encoder(tokenizer, model):
    batch = {"input_ids": torch.tensor([[5, 6, 7, 1], [5, 1, 0, 0]]), "labels": torch.tensor([[5, 1], [6, 1]])}
    batch["attention_mask"] = (batch["input_ids"] != 0).long()
    outputs = model(**batch)
    states = outputs.encoder_last_hidden_state.detach()
    means = torch.stack([states[0].mean(0), states[1, :2].mean(0)])
    there, away = torch.cat([means, torch.randn(2, 352)], 1), torch.cat([-means, torch.randn(2, 352)], 1)
    assert TASK.auxiliary_loss(outputs, batch, {"vector": there}).item() == pytest.approx(0, abs=1e-5)
    assert TASK.auxiliary_loss(outputs, batch, {"vector": away}).item() == pytest.approx(2, abs=1e-5)


def test_a_run_adds_the_auxiliary_loss(run_main, monkeypatch):
    """The whole path, with random vectors in the place of the encoder's: they have its shape, and cost no download."""

    def embed(texts):
        return torch.randn(len(texts), 384, generator=torch.Generator().manual_seed(len(texts)))

    original = distillation.Distillation.auxiliary_loss
    monkeypatch.setattr(distillation.sentence_encoder, "embed", embed)
    monkeypatch.setattr(distillation.Distillation, "auxiliary_loss", lambda *given: 1e6 + original(*given))
    distillation.sentence_vectors.cache_clear()
    keys = {**TINY_RUN, "task_name": TASK.name, "initial_embedding": None, "bf16": False}
    status, errors, out = run_main("configs/pretrain/t5_nano.json", **keys)
    distillation.sentence_vectors.cache_clear()
    assert status == 0, errors
    validation = json.loads((out / "results.json").read_text())["splits"]["validation"]
    # Beside the million: a cosine distance, and the cross-entropy of a random model, about 9.
    assert 1e6 < validation["tasks"][TASK.name]["scores"]["loss"] < 1e6 + 20


def test_directions_are_principal(monkeypatch):
    torch.manual_seed(0)
    scales = torch.linspace(3, 1, 384)
    rows = {name: torch.randn(600, 384) * scales + shift for name, shift in (("a", 5.0), ("b", -5.0))}
    monkeypatch.setattr(distillation, "sentence_vectors", lambda split: rows)
    means, directions = distillation.training_statistics()
    coordinates = torch.cat([(rows[name] - means[name]) @ directions for name in rows])
    assert coordinates.mean(0).abs().max() < 1e-3
    deviations = coordinates.std(0)
    assert (deviations.diff() < 1e-4).all()
    covariance = coordinates.T @ coordinates
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-2 * covariance.max()
