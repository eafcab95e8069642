"""A run does not wait, copy or keep what nobody asked for; on a GPU each of these costs time at every step."""

import functools

import torch
import transformers

from seq2seq import pipeline, timing
from seq2seq.summary import peak_memory_mib, reset_peak_memory
from seq2seq.timing import TimingCallback
from tests.conftest import TINY_RUN


def never(what: str):
    def fail(*args, **kwargs):
        raise AssertionError(what)

    return fail


def test_training_keeps_no_cache_and_takes_no_times(run_main, monkeypatch):
    kept, forward, fork_rng = [], transformers.T5ForConditionalGeneration.forward, torch.random.fork_rng

    @functools.wraps(forward)
    def watched(model, *args, **kwargs):
        output = forward(model, *args, **kwargs)
        if model.training:
            kept.append(output.past_key_values)
        return output

    def fork_of(devices=None, **kwargs):
        assert devices is not None, "the random states of all devices are copied"
        return fork_rng(devices, **kwargs)

    monkeypatch.setattr(transformers.T5ForConditionalGeneration, "forward", watched)
    monkeypatch.setattr(torch.random, "fork_rng", fork_of)
    monkeypatch.setattr(pipeline, "TimingCallback", never("nobody asked for times"))
    status, errors, _ = run_main("configs/lora.json", **TINY_RUN, compute_time=False)
    assert status == 0, errors
    assert kept
    assert set(kept) == {None}


def test_times_wait_for_the_device_that_trains(monkeypatch):
    waited = []
    monkeypatch.setattr(timing.torch.accelerator, "synchronize", waited.append)
    for kind in ("cpu", "cuda"):
        args = type("Arguments", (), {"device": torch.device(kind)})
        callback, state = TimingCallback(), type("State", (), {"epoch": 0.0})
        callback.on_epoch_begin(args, state, None)
        callback.on_step_begin(args, state, None)
        callback.on_step_end(args, state, None)
    assert waited == [torch.device("cuda")] * 3


def test_a_run_on_the_cpu_reports_the_memory_of_the_process(monkeypatch):
    """Also on a machine with a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", never("the run is on the CPU"))
    reset_peak_memory(torch.device("cpu"))
    assert peak_memory_mib(torch.device("cpu")) > 100
