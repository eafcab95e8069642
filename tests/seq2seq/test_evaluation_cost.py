"""The loss of an evaluation and the generated answers share one pass of the encoder."""

import pytest

from tests.conftest import TINY_RUN
from third_party.models.t5 import T5ForConditionalGeneration


@pytest.mark.parametrize("keys", [{}, {"train_task_adapters": False, "tensor_train_adapters": False}])
def test_the_encoder_runs_once_for_each_batch(run_main, monkeypatch, keys):
    prompt = {"prefix_tuning": True, "prefix_dim": 4, "unfreeze_layer_norms": False} if keys else {}
    passes = {"encoder": 0, "generated": 0}
    load, generate = T5ForConditionalGeneration.attach_adapters, T5ForConditionalGeneration.generate

    def attach(model, *given):
        load(model, *given)
        model.encoder.register_forward_hook(lambda *_: passes.update(encoder=passes["encoder"] + (not model.training)))

    def count(model, *given, **more):
        passes["generated"] += 1
        return generate(model, *given, **more)

    monkeypatch.setattr(T5ForConditionalGeneration, "attach_adapters", attach)
    monkeypatch.setattr(T5ForConditionalGeneration, "generate", count)
    status, errors, _ = run_main("configs/tt_adapter.json", **TINY_RUN | keys | prompt)
    assert status == 0, errors
    assert passes["encoder"] == passes["generated"] > 0
