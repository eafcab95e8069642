"""early_stopping_patience ends a run at the same step, interrupted or not, and says so."""

import json
from pathlib import Path

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from run_seq2seq import main
from seq2seq import pipeline
from seq2seq.early_stopping import EarlyStopping
from seq2seq.trainer import AdapterTrainer
from tests.conftest import TINY_RUN
from tests.seq2seq.processes import arguments_of

# Nothing is learned, so the first of the evaluations, every three steps, is the best one.
KEYS = {
    **TINY_RUN,
    "num_train_epochs": 6,
    "learning_rate": 0.0,
    "early_stopping_patience": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": "loss",
    "greater_is_better": False,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 5,
    "overwrite_output_dir": False,
    "do_test": False,
}


def run(out: Path, config: str = "configs/tt_adapter.json", **keys) -> int:
    return main(arguments_of(config, **{**KEYS, **keys, "output_dir": str(out)}))


def history(out: Path) -> list[dict]:
    lines = json.loads((out / "results.json").read_text())["history"]
    return [{k: v for k, v in line.items() if not k.endswith(("runtime", "per_second"))} for line in lines]


def steps_of(out: Path) -> list[int]:
    """The steps at which the run evaluated."""
    return [line["step"] for line in history(out) if "eval_loss" in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    assert run(out) == 0
    return out


def test_a_run_stops_after_that_many_evaluations_without_improvement(whole):
    assert steps_of(whole) == [3, 6, 9]


def interrupt_at(step: int):
    class Interrupt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == step:
                raise KeyboardInterrupt

    return lambda **kwargs: AdapterTrainer(**kwargs, callbacks=[Interrupt()])


@pytest.mark.parametrize(
    "keys", [{}, {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 2, "save_steps": 2}]
)
def test_a_resumed_run_stops_at_the_same_step(keys, whole, monkeypatch, tmp_path, capfd):
    if keys:
        whole = tmp_path / "whole"
        assert run(whole, **keys) == 0
        assert steps_of(whole) == [2, 4, 6]
    last = steps_of(whole)[-1]
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "AdapterTrainer", interrupt_at(last - 1))
        assert run(tmp_path / "out", **keys) == 130
    capfd.readouterr()
    assert run(tmp_path / "out", **keys) == 0
    assert history(tmp_path / "out") == history(whole)
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("stopped early")]
    assert line.startswith(f"stopped early at step {last}: eval_loss has not improved for 2 evaluations; the best, ")


def test_a_run_that_was_stopped_trains_no_further(whole, monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "split_results", interrupted)
        assert run(tmp_path / "out") == 130
    assert run(tmp_path / "out") == 0
    assert history(tmp_path / "out") == history(whole)


def test_of_several_tasks_the_average_counts_or_one_of_them(tmp_path):
    for metric in ("average_metrics", "vader-nyt_accuracy"):
        keys = {"task_name": ["vader-nyt", "vader-amazon"], "metric_for_best_model": metric, "greater_is_better": True}
        keys |= {"early_stopping_patience": 1, "max_train_samples": 16}
        assert run(tmp_path / metric, "configs/vader_multitask.json", **keys) == 0
        epochs = [line["epoch"] for line in history(tmp_path / metric) if "eval_average_metrics" in line]
        assert epochs == [1, 2]


def test_a_metric_that_is_not_a_number_is_no_improvement_and_said(capsys, tmp_path):
    args = TrainingArguments(str(tmp_path), metric_for_best_model="loss", greater_is_better=False)
    state, control = TrainerState(global_step=4, best_metric=1.0, best_global_step=2), TrainerControl()
    EarlyStopping(1).on_evaluate(args, state, control, {"eval_loss": float("nan")})
    assert control.should_training_stop
    printed = capsys.readouterr()
    assert printed.err == "warning: step 4: eval_loss is not a number; early stopping counts it as no improvement\n"
    assert "the best, 1, is that of step 2" in printed.out


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"early_stopping_patience": 0}, "early_stopping_patience is 0; it must be at least 1"),
        ({"load_best_model_at_end": False}, "load_best_model_at_end is false"),
        ({"eval_strategy": "no", "save_strategy": "no"}, 'eval_strategy is "no"'),
        (
            {"metric_for_best_model": "acuracy"},
            "metric_for_best_model is 'acuracy'; allowed for vader-amazon: accuracy, ",
        ),
        ({"predict_with_generate": False, "metric_for_best_model": "accuracy"}, "metric_for_best_model is 'accuracy'"),
    ],
)
def test_contradictions_are_one_line(keys, words, run_main):
    status, errors, out = run_main("configs/tt_adapter.json", **{**KEYS, **keys})
    assert (status, len(errors)) == (2, 1)
    assert words in errors[0]
    assert not out.exists()
