"""Real training runs on a clock that only the work moves on."""

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainingArguments

from seq2seq import timing
from seq2seq.timing import TimingCallback

# Seconds that the work takes on this clock.
LOADING, FORWARD, EVALUATING, SAVING = 1, 10, 1000, 10_000


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing, "perf_counter", clock)
    return clock


class Data(torch.utils.data.Dataset):
    def __init__(self, clock):
        self.clock = clock

    def __len__(self):
        return 6

    def __getitem__(self, number):
        self.clock.now += LOADING
        return {"x": torch.ones(2)}


class Model(nn.Module):
    def __init__(self, clock):
        super().__init__()
        self.linear, self.clock = nn.Linear(2, 1), clock

    def forward(self, x):
        self.clock.now += FORWARD if self.training else EVALUATING
        return {"loss": self.linear(x).sum()}


class SlowlySaving(Trainer):
    def save_model(self, *args, **kwargs):
        self.args.clock.now += SAVING
        return super().save_model(*args, **kwargs)


def train(clock, directory, resume=None, **arguments) -> TimingCallback:
    """Train on six rows, one a batch."""
    settings = {"per_device_train_batch_size": 1, "report_to": "none", "disable_tqdm": True, "save_strategy": "no"}
    args = TrainingArguments(str(directory), **{**settings, "use_cpu": True, **arguments})
    args.clock = clock
    callback = TimingCallback()
    data = Data(clock)
    trainer = SlowlySaving(Model(clock), args, train_dataset=data, eval_dataset=data, callbacks=[callback])
    trainer.train(resume_from_checkpoint=resume)
    return callback


def test_steps_and_epochs(clock, tmp_path):
    callback = train(clock, tmp_path, num_train_epochs=3)
    assert callback.steps == [FORWARD] * 18
    assert callback.epochs == [6 * (LOADING + FORWARD)] * 3
    assert callback.summary() == {"seconds_per_step": 10, "seconds_per_epoch": 66, "input_share": 1 / 11, "steps": 18}


def test_a_step_has_all_its_accumulated_batches(clock, tmp_path):
    callback = train(clock, tmp_path, num_train_epochs=2, gradient_accumulation_steps=4)
    assert callback.steps == [4 * FORWARD, 2 * FORWARD] * 2
    assert callback.epochs == [6 * (LOADING + FORWARD)] * 2
    assert callback.summary() == {"seconds_per_step": 30, "seconds_per_epoch": 66, "input_share": 1 / 11, "steps": 4}


@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_evaluation_and_saving_are_not_training(clock, tmp_path, strategy):
    when = {"eval_strategy": strategy, "save_strategy": strategy, "eval_steps": 2, "save_steps": 3}
    callback = train(clock, tmp_path, num_train_epochs=2, **when)
    assert clock.now > 2 * (EVALUATING + SAVING)
    assert callback.steps == [FORWARD] * 12
    assert callback.epochs == [6 * (LOADING + FORWARD)] * 2
    assert sum(callback.inputs) == 12 * LOADING


def test_a_part_of_an_epoch_is_no_epoch(clock, tmp_path):
    callback = train(clock, tmp_path, max_steps=4, save_strategy="steps", save_steps=4)
    # Four steps and five batches: one is always fetched ahead.
    assert callback.summary() == {
        "seconds_per_step": 10,
        "seconds_per_epoch": None,
        "input_share": 5 / 45,
        "steps": 4,
    }
    resumed = train(clock, tmp_path, num_train_epochs=2, resume=str(tmp_path / "checkpoint-4"))
    assert resumed.summary() == {
        "seconds_per_step": 10,
        "seconds_per_epoch": 66,
        "input_share": pytest.approx(8 / 88, rel=0.1),
        "steps": 8,
    }


def test_without_training_there_is_nothing():
    nothing = {"seconds_per_step": None, "seconds_per_epoch": None, "input_share": None, "steps": 0}
    assert TimingCallback().summary() == nothing


def test_evaluation_alone_is_nothing(clock, tmp_path):
    callback = TimingCallback()
    args = TrainingArguments(str(tmp_path), report_to="none", disable_tqdm=True, use_cpu=True)
    Trainer(Model(clock), args, eval_dataset=Data(clock), callbacks=[callback]).evaluate()
    assert callback.summary()["steps"] == 0
