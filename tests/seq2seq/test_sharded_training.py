"""Runs that FSDP 2 spreads over two processes (gloo, CPU) give what the same runs give under DDP."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import TINIEST, TINY_RUN
from tests.seq2seq.processes import arguments_of, exit_codes

pytestmark = pytest.mark.slow
CONFIG = "configs/vader_multitask.json"
KEYS = {
    **TINY_RUN,
    "task_name": ["vader-nyt", "vader-amazon"],
    "model_config": {**TINIEST, "dropout_rate": 0.0},
    "warmup_steps": 0,
    "logging_steps": 1,
    "overwrite_output_dir": False,
    "max_train_samples": 24,
    "max_val_samples": 8,
    "num_train_epochs": 2,
}
FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "T5Block",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",  # the default of `accelerate launch`
}
NO_ADAPTERS = {"train_task_adapters": False, "tensor_train_adapters": False}
TT_LORA = {**NO_ADAPTERS, "use_TTLoRA": True, "tt_rank": 2, "tt_d": 2}
SUBSPACE = {**NO_ADAPTERS, "intrinsic_model": True, "intrinsic_dim": 100, "unfreeze_layer_norms": False}
METHODS = {
    "branch": {**TT_LORA, "unfreeze_layer_norms": True},
    "blocks that share cores": {**TT_LORA, "tt_cross_layer": True},
    "subspace": {**SUBSPACE, "intrinsic_said": True, "gradient_accumulation_steps": 2},
    "all weights": NO_ADAPTERS,
}


def run(out, sharded=True, kill_at_step=None, environment=None, **keys):
    """Exit codes of two processes. environment: what accelerate is told besides FSDP."""
    variables = {**FSDP, **(environment or {})} if sharded else {}
    arguments = arguments_of(CONFIG, **{**KEYS, **keys}, output_dir=str(out))
    return exit_codes(sharded_run, arguments, variables, kill_at_step, log=out.with_suffix(".log"), processes=2)


def sharded_run(arguments: list[str], variables: dict[str, str], kill_at_step: int | None) -> int:
    """Accelerate shards on accelerators only: here it takes the CPU for one."""
    os.environ.update(variables)
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType
    from transformers import TrainerCallback

    import run_seq2seq
    from seq2seq import pipeline
    from seq2seq.trainer import AdapterTrainer

    class Watcher(TrainerCallback):
        def on_step_end(self, args, state, control, model, **kwargs):
            assert any(hasattr(weight, "placements") for weight in model.parameters()) == bool(variables)
            if state.global_step == kill_at_step:
                os._exit(9)

    class Watched(AdapterTrainer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs, callbacks=[Watcher()])

    pipeline.AdapterTrainer = Watched
    torch.distributed.init_process_group("gloo")
    if variables:
        PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
        PartialState.set_device = lambda state: setattr(state, "device", torch.device("cpu"))
    return run_seq2seq.main(arguments)


def log_of(out):
    return out.with_suffix(".log").read_text()[-4000:]


def results(out):
    return json.loads((out / "results.json").read_text())


def weights(out):
    [file] = [path for path in out.glob("*model.safetensors") if path.is_file()]
    return load_file(file)


@pytest.mark.parametrize("method", METHODS)
def test_a_sharded_run_gives_what_ddp_gives(method, tiny_backbone, tmp_path):
    whole, sharded = tmp_path / "whole", tmp_path / "sharded"
    keys = {"model_name_or_path": str(tiny_backbone), "tokenizer_name": None, "model_config": None, **METHODS[method]}
    assert run(whole, sharded=False, **keys) == [0, 0], log_of(whole)
    assert run(sharded, **keys) == [0, 0], log_of(sharded)
    a, b = results(whole), results(sharded)
    for split in ("validation", "test"):
        assert b["splits"][split]["average_metrics"] == pytest.approx(a["splits"][split]["average_metrics"], abs=1e-3)
    losses = [[line["loss"] for line in each["history"] if "loss" in line] for each in (a, b)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    a, b = weights(whole), weights(sharded)
    assert a.keys() == b.keys()
    assert all(torch.allclose(a[name], b[name], atol=1e-3) for name in a)


def test_a_sharded_run_is_resumed(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    keys = {**NO_ADAPTERS, "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    assert run(whole, **keys) == [0, 0], log_of(whole)
    assert run(out, **keys, kill_at_step=3) == [9, 9], log_of(out)
    assert (out / "checkpoint-2").is_dir()
    assert run(out, **keys) == [0, 0], log_of(out)
    a, b = weights(whole), weights(out)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("environment", "keys", "words"),
    [
        ({"FSDP_VERSION": "1"}, {}, "set fsdp_version to 2"),
        ({"FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT"}, {}, "fsdp_state_dict_type to FULL_STATE_DICT"),
        ({"FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer"}, {}, "by T5Block only"),
        ({"FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP"}, {}, "set fsdp_auto_wrap_policy to TRANSFORMER_BASED_WRAP"),
        ({}, {**TT_LORA, "task_name": "vader-nyt", "merge_and_export": True}, "in one process"),
    ],
)
def test_what_sharded_runs_cannot_do_is_refused(environment, keys, words, tmp_path):
    out = tmp_path / "out"
    assert run(out, environment=environment, **keys) == [2, 2], log_of(out)
    assert words in out.with_suffix(".log").read_text()  # torch may append pages on connections that ended
    assert not out.exists()
