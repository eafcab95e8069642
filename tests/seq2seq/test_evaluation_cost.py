"""The loss of an evaluation and the generated answers share one pass of the encoder."""

import json

import pytest

from tests.conftest import TINY_RUN
from third_party.models.t5 import T5ForConditionalGeneration

OFF = {"train_task_adapters": False, "tensor_train_adapters": False, "unfreeze_layer_norms": False}
METHODS = {"adapters": {}, "prompt": {**OFF, "prefix_tuning": True, "prefix_dim": 4}}


def scores_of(run_main, **keys) -> tuple:
    status, errors, out = run_main("configs/tt_adapter.json", **TINY_RUN | keys)
    assert status == 0, errors
    results = json.loads((out / "results.json").read_text())
    return results["splits"], [entry["eval_loss"] for entry in results["history"] if "eval_loss" in entry]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_the_encoder_runs_once_for_each_batch_and_nothing_changes(run_main, monkeypatch, method, beams):
    keys = METHODS[method] | {"generation_num_beams": beams}
    passes = {"encoder": 0, "generated": 0}
    attach, generate = T5ForConditionalGeneration.attach_adapters, T5ForConditionalGeneration.generate

    def watch(model, *given):
        attach(model, *given)
        model.encoder.register_forward_hook(lambda *_: passes.update(encoder=passes["encoder"] + (not model.training)))

    def count(model, *given, **more):
        passes["generated"] += 1
        return generate(model, *given, **more)

    monkeypatch.setattr(T5ForConditionalGeneration, "attach_adapters", watch)
    monkeypatch.setattr(T5ForConditionalGeneration, "generate", count)
    once = scores_of(run_main, **keys)
    assert once[1]
    assert passes["encoder"] == passes["generated"] > 0
    monkeypatch.setattr("seq2seq.trainer.AdapterTrainer._encoded", lambda trainer, batch: batch)
    assert scores_of(run_main, **keys) == once
