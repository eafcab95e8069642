"""split_by_length: a batch in parts of similar length has the loss and the gradients of the whole batch."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seq2seq.data.parts import cuts, parts_of
from seq2seq.pipeline import prepare
from seq2seq.settings import load_settings
from tests.conftest import TINIEST, TINY_RUN
from tests.seq2seq.processes import arguments_of

KEYS = {
    **TINY_RUN,
    "model_config": {**TINIEST, "dropout_rate": 0.0},
    "label_style": "words",
    "per_device_train_batch_size": 48,
    "train_sampling_strategy": "sequential",
    "max_grad_norm": 0,
}


def trainer_of(out, **keys):
    path, *arguments = arguments_of("configs/tt_adapter.json", **{**KEYS, **keys}, output_dir=str(out))
    return prepare(load_settings(path, arguments)[0])[0]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 80))
@settings(max_examples=100, deadline=None)
def test_each_cut_saves_what_it_must(lengths, worth):
    lengths.sort()
    bounds = [0, *cuts(lengths, worth), len(lengths)]
    assert bounds == sorted(set(bounds))
    computed = sum((end - start) * lengths[end - 1] for start, end in zip(bounds, bounds[1:], strict=False))
    assert computed + worth * (len(bounds) - 2) <= len(lengths) * lengths[-1]
    for start, end in zip(bounds, bounds[1:], strict=False):
        assert not cuts(lengths[start:end], worth)


def test_the_parts_are_the_rows_without_their_padding():
    batch = {
        "input_ids": torch.tensor([[5, 6, 0, 0], [7, 8, 9, 4], [3, 0, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]),
        "labels": torch.tensor([[1, -100], [1, 2], [3, -100]]),
        "weight": torch.tensor([1.0, 2.0, 3.0]),
        "task": "mrpc",
    }
    short, long = parts_of(batch, worth=3)
    assert {name: getattr(value, "tolist", lambda: "mrpc")() for name, value in short.items()} == {
        "input_ids": [[3, 0], [5, 6]],
        "attention_mask": [[1, 0], [1, 1]],
        "labels": [[3], [1]],
        "weight": [3.0, 1.0],
        "task": "mrpc",
    }
    assert long["input_ids"].tolist() == [[7, 8, 9, 4]]
    assert long["labels"].tolist() == [[1, 2]]
    for kept in (batch, batch | {"task": ["mrpc", "rte", "rte"]}, batch | {"vector": torch.zeros(3)}):
        (whole,) = parts_of(kept, worth=5 if kept is batch else 1)
        assert whole == kept


@pytest.mark.parametrize("keys", [{}, {"label_smoothing_factor": 0.1, "class_weights": "balanced"}])
def test_loss_and_gradients_are_those_of_the_batch(keys, tmp_path, monkeypatch):
    monkeypatch.setattr("seq2seq.trainer.parts_of", lambda batch: parts_of(batch, worth=40))
    trainer = trainer_of(tmp_path / "out", **keys)
    batch = next(iter(trainer.get_train_dataloader()))
    assert len(parts_of(batch, worth=40)) > 2
    tokens, found = (batch["labels"] != -100).sum(), []
    for split in (False, True):
        trainer.splits_batches, trainer.current_gradient_accumulation_steps = split, 1
        loss = trainer.training_step(trainer.model, dict(batch), tokens)
        found.append((loss, [p.grad.clone() for p in trainer.model.parameters() if p.grad is not None]))
        trainer.model.zero_grad()
    (whole, gradients), (sum_of_parts, sums) = found
    assert sum_of_parts.item() == pytest.approx(whole.item(), rel=1e-6)
    assert gradients
    for gradient, total in zip(gradients, sums, strict=True):
        torch.testing.assert_close(total, gradient, rtol=1e-4, atol=1e-6)


def test_a_run_logs_the_same_losses(run_main, tmp_path, monkeypatch):
    parts, losses = [], []

    def small_parts(batch):
        parts.append(parts_of(batch, worth=20))
        return parts[-1]

    monkeypatch.setattr("seq2seq.trainer.parts_of", small_parts)
    for split in (False, None):
        keys = {**KEYS, "per_device_train_batch_size": 12, "gradient_accumulation_steps": 2, "split_by_length": split}
        out = str(tmp_path / str(split))
        keys |= {"logging_steps": 1, "do_test": False, "output_dir": out}
        status, errors, out = run_main("configs/tt_adapter.json", **keys)
        assert status == 0, errors
        history = json.loads((out / "results.json").read_text())["history"]
        losses.append([line["loss"] for line in history if "loss" in line])
        assert bool(parts) is (split is None)
    assert all(len(each) > 1 for each in parts)
    assert len(losses[0]) == 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_null_splits_where_only_rounding_changes(tmp_path):
    assert trainer_of(tmp_path / "out").splits_batches
    for keys in ({"model_config": TINIEST}, {"neftune_noise_alpha": 5.0}, {"split_by_length": False}):
        assert not trainer_of(tmp_path / "out", **keys).splits_batches
    assert trainer_of(tmp_path / "out", model_config=TINIEST, split_by_length=True).splits_batches
