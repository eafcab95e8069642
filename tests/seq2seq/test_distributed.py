"""One run in one process and the same in two (gloo, CPU): the same loss, predictions and scores."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TINIEST, TINY_RUN
from tests.seq2seq.processes import arguments_of, exit_codes, torchrun_variables

pytestmark = pytest.mark.slow
CONFIG = "configs/vader_multitask.json"
# Targets of different lengths: the mean over tokens is not the mean of the processes' means.
KEYS = {
    **TINY_RUN,
    "task_name": ["vader-nyt", "vader-nyt-rating", "vader-amazon"],
    "model_config": {**TINIEST, "dropout_rate": 0.0},
    "warmup_steps": 0,
    "logging_first_step": True,
    "logging_steps": 1,
    "overwrite_output_dir": False,
    "max_train_samples": 24,
    "max_val_samples": 8,
    "num_train_epochs": 2,
    "load_best_model_at_end": False,  # often that of the first epoch, which tells nothing about the later ones
}


def run(out, processes=1, kill_at_step=None, **keys):
    """Exit codes of the processes of one run. kill_at_step: they all die after it."""
    arguments = arguments_of(CONFIG, **{**KEYS, **keys}, output_dir=str(out))
    return exit_codes(killed_run, arguments, kill_at_step, log=out.with_suffix(".log"), processes=processes)


def killed_run(arguments: list[str], kill_at_step: int | None) -> int:
    from transformers import TrainerCallback

    import run_seq2seq
    from seq2seq import pipeline
    from seq2seq.trainer import AdapterTrainer

    class Killer(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == kill_at_step:
                os._exit(9)

    class Killed(AdapterTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs, callbacks=[Killer()])

    pipeline.AdapterTrainer = Killed
    return run_seq2seq.main(arguments)


def results(out):
    return json.loads((out / "results.json").read_text())


def losses(results):
    return [line["loss"] for line in results["history"] if "loss" in line]


def adapters(out):
    return load_file(out / "adapter_model.safetensors")


def test_processes_that_find_each_other_have_the_variables_of_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "--no-python"]
    subprocess.run([*command, "sh", "-c", f"env > {tmp_path}/$RANK"], check=True, capture_output=True, timeout=100)
    for rank in range(2):
        lines = (tmp_path / str(rank)).read_text().splitlines()
        theirs = dict(line.split("=", 1) for line in lines if "=" in line)
        ours = torchrun_variables(rank, processes=2, port=int(theirs["MASTER_PORT"]))
        assert ours == {name: theirs.get(name) for name in ours}


def test_two_processes_train_as_one_does(run_main, tmp_path):
    """Equal global batch, weighted rows of several tasks in it: 16 rows at once, or 2 x 4 accumulated twice."""
    one, two = tmp_path / "one", tmp_path / "two"
    keys = {**KEYS, "mixed_batches": True, "do_test": False, "class_weights": "balanced"}
    keys |= {"task_name": ["vader-nyt", "vader-movie", "vader-amazon"], "label_style": "words"}
    status, errors, _ = run_main(CONFIG, **keys, output_dir=str(one))
    assert status == 0, errors
    keys |= {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert run(two, processes=2, **keys) == [0, 0], two.with_suffix(".log").read_text()[-4000:]
    both, alone = results(two), results(one)
    assert losses(both)[0] == pytest.approx(losses(alone)[0], abs=1e-5)
    assert losses(both) == pytest.approx(losses(alone), abs=1e-3)
    a, b = adapters(one), adapters(two)
    assert all(torch.allclose(a[name], b[name], atol=1e-3) for name in a)


def test_a_checkpoint_scores_alike_in_one_process_and_in_two(run_main, tiny_backbone, tmp_path):
    """23 rows in batches of 4 leave the last batches of two processes half empty."""
    keys = {**KEYS, "model_name_or_path": str(tiny_backbone), "tokenizer_name": None, "model_config": None}
    keys |= {"max_test_samples": 23, "per_device_eval_batch_size": 4, "do_eval": False, "eval_strategy": "no"}
    keys["num_train_epochs"] = 1
    status, errors, trained = run_main(CONFIG, **keys, save_strategy="no", output_dir=str(tmp_path / "trained"))
    assert status == 0, errors
    keys |= {"model_name_or_path": str(trained), "do_train": False}
    assert run_main(CONFIG, **keys, output_dir=str(tmp_path / "one"))[0] == 0
    assert run(tmp_path / "two", processes=2, **keys) == [0, 0]
    alone, both = results(tmp_path / "one"), results(tmp_path / "two")
    files = sorted(path.name for path in (tmp_path / "one/predictions").iterdir())
    assert len(files) == 3
    for name in files:
        assert (tmp_path / "one/predictions" / name).read_text() == (tmp_path / "two/predictions" / name).read_text()
    assert both["splits"]["test"]["average_metrics"] == alone["splits"]["test"]["average_metrics"]
    for task, scored in alone["splits"]["test"]["tasks"].items():
        other = both["splits"]["test"]["tasks"][task]
        assert scored["rows"] == other["rows"] == 23
        assert other["scores"] == pytest.approx(scored["scores"], abs=1e-5)


def test_an_interrupted_mixture_resumes_with_the_exact_sequence(tmp_path):
    """Two processes, killed in the second epoch after a checkpoint in mid-epoch; several tasks, grouped by length."""
    keys = {"per_device_train_batch_size": 8, "save_strategy": "steps", "save_steps": 7, "eval_strategy": "steps"}
    keys |= {"eval_steps": 7, "do_test": False, "processes": 2}
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run(whole, **keys) == [0, 0], whole.with_suffix(".log").read_text()[-4000:]
    assert run(out, **keys, kill_at_step=8) == [9, 9], out.with_suffix(".log").read_text()[-4000:]
    assert not (out / "results.json").exists()
    assert (out / "checkpoint-7").is_dir()
    assert run(out, **keys) == [0, 0], out.with_suffix(".log").read_text()[-4000:]
    a, b = adapters(whole), adapters(out)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
