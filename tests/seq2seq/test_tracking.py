"""What a run leaves at wandb: its configuration, its name, its summary, and how it ends."""

import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from adapters import AdapterConfig
from seq2seq import pipeline
from seq2seq.settings import build, load_settings
from seq2seq.tracking import FakeWandb, TrackingCallback, main_attributes, name_of, start_tracking, summary_of
from tests.conftest import ROOT, TINY_RUN
from third_party.models.t5 import T5ForConditionalGeneration
from third_party.models.t5.adapting import modify_model_after_init
from third_party.models.t5.parameters import count_parameters

CONFIG = "configs/tt_adapter.json"


@pytest.fixture
def adapted(tiny_config):
    """adapted(config file, override ..) -> (settings, adapted model)."""

    def call(config: str = CONFIG, *overrides: str):
        settings, _ = load_settings(str(ROOT / config), list(overrides))
        return settings, modify_model_after_init(T5ForConditionalGeneration(tiny_config), settings.adapter)

    return call


def test_without_wandb_a_stand_in_takes_the_calls(adapted):
    run = start_tracking(*adapted())
    assert isinstance(run, FakeWandb)
    assert run.log({"loss": 1.0}, step=1) is None
    assert run.summary.update({"seconds": 1.0}) is None
    assert run.finish(exit_code=1) is None


def test_the_run_is_described_by_every_key_that_it_reads(adapted):
    """Also where the value is the default, as that of non_linearity, or the file does not set the key, as tt_shape."""
    settings, model = adapted(CONFIG, "--seed", "7", "--gradient_accumulation_steps", "3", "--max_train_samples", "48")
    attributes, defaults = main_attributes(settings, model), AdapterConfig().to_dict()
    assert attributes["method"] == "tensor_train_adapters"
    for name in ("non_linearity", "tt_shape", "cores_nonlinearity", "task_adapter_in_decoder", "use_bias"):
        assert attributes[name] == defaults[name]
    assert attributes["unfreeze_layer_norms"] is True
    assert not {"lora_rank", "phm_rank", "prefix_length", "tasks"} & set(attributes)
    expected = {
        "task": "vader-movie",
        "model": "t5-nano",
        "dtype": "float32",
        "learning_rate": 0.002,
        "warmup_steps": 100,
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "batch_size": 48,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 3,
        "processes": 1,
        "max_source_length": 128,
        "max_target_length": 128,
        "max_train_samples": 48,
        "low_resource": None,
        "epochs": 2,
        "seed": 7,
        "data_seed": None,
        "split_seed": 42,
        "trainable_parameters": count_parameters(model)["trainable"],
        "backbone_parameters": model.backbone_size,
    }
    assert {name: attributes[name] for name in expected} == expected
    assert json.loads(json.dumps(attributes)) == attributes


@pytest.mark.parametrize(("config", "read"), [("configs/lora.json", "lora_rank"), ("configs/baseline.json", None)])
def test_each_method_has_its_own_keys(adapted, config, read):
    attributes = main_attributes(*adapted(config))
    assert "tt_rank" not in attributes
    assert read is None or read in attributes


def test_what_else_was_set_is_an_attribute_too_but_no_password(adapted):
    attributes = main_attributes(*adapted(CONFIG, "--label_smoothing_factor", "0.1", "--hub_token", "hf_x"))
    assert attributes["label_smoothing_factor"] == 0.1
    assert "hf_x" not in json.dumps(attributes)
    assert not {"task_name", "output_dir", "model_name_or_path", "num_train_epochs"} & set(attributes)


def test_the_name_has_the_task():
    def settings(tasks, name="tt", **keys):
        return build({"task_name": tasks, "experiment_name": name, "output_dir": "out", **keys})

    assert name_of(settings("cola")) == "cola_tt"
    assert name_of(settings(["cola", "mrpc"], eval_dataset_name="rte")) == "cola+mrpc_tt"
    assert name_of(settings(["vader-movie", *(f"task-{i}" for i in range(20))])) == "vader-movie+20_tt"
    assert len(name_of(settings("cola", "x" * 200))) == 128


def test_other_tasks_of_evaluation_are_attributes(adapted):
    attributes = main_attributes(*adapted(CONFIG, "--test_dataset_name", '["vader-movie", "vader-amazon"]'))
    assert (attributes["task"], attributes["test_task"]) == ("vader-movie", "vader-movie+vader-amazon")
    assert "eval_task" not in attributes


def test_the_summary_is_flat():
    scores = {"scores": {"f1": 81.0, "loss": 0.5}, "average_metrics": 81.0, "majority": {"f1": 50.0}, "rows": 3}
    results = {
        "seconds": 3.5,
        "peak_memory_mib": 100.0,
        "splits": {"test": {"tasks": {"mrpc": scores}, "average_metrics": 81.0}, "validation": {"tasks": {}}},
        "parameters": {"trainable": 2, "total": 12, "backbone": 10},
        "components": [{"name": "rest of the backbone", "trainable": 0, "total": 9}],
    }
    flat = {
        "seconds": 3.5,
        "peak_memory_mib": 100.0,
        "test/mrpc/f1": 81.0,
        "test/mrpc/loss": 0.5,
        "test/average_metrics": 81.0,
        "parameters/trainable": 2,
        "parameters/total": 12,
        "parameters/backbone": 10,
        "parameters/rest_of_the_backbone/trainable": 0,
        "parameters/rest_of_the_backbone/total": 9,
    }
    assert summary_of(results) == flat
    measured = {
        "time": {"seconds_per_step": 0.25, "seconds_per_epoch": None},
        "memory": {"peak": 8, "cuda_peak": None, "total": {"gradients": 4}, "layers": {"a.0": {"gradients": 3}}},
    }
    assert summary_of({**results, **measured}) == {
        **flat,
        "time/seconds_per_step": 0.25,
        "memory/peak": 8,
        "memory/total/gradients": 4,
        "memory/a.0/gradients": 3,
    }


def test_all_that_is_logged_reaches_the_run():
    class Recorder(FakeWandb):
        calls = []

        def log(self, values, step):
            self.calls.append((values, step))

    callback = TrackingCallback(Recorder())
    for main_process in (True, False):
        state = SimpleNamespace(is_world_process_zero=main_process, global_step=3)
        callback.on_log(None, state, None, logs={"eval_loss": 1.5})
    assert Recorder.calls == [({"eval_loss": 1.5}, 3)]


@pytest.mark.parametrize(("error", "status"), [(None, 0), (KeyboardInterrupt, 130)])
def test_each_run_of_a_series_is_finished_before_the_next_starts(run_main, monkeypatch, error, status):
    events = []

    class Recorder(FakeWandb):
        def finish(self, exit_code):
            events.append(("finish", exit_code, "peak_memory_mib" in self.summary))

    def init(**keywords):
        events.append(("init", keywords["config"]["seed"], keywords["name"], keywords["group"]))
        return Recorder()

    def train(settings, trainer, directory):
        if error and settings.training.seed == 2:
            raise error
        trainer.save_final(torch.float32)
        return {}

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init, Error=ValueError))
    monkeypatch.setattr(pipeline, "train", train)
    keys = {**TINY_RUN, "seeds": [1, 2], "log_to_wandb": True, "load_best_model_at_end": False, "do_eval": False}
    assert run_main(CONFIG, **keys, experiment_name="tiny")[0] == status
    assert events == [
        ("init", 1, "vader-amazon_tiny", "tiny"),
        ("finish", 0, True),
        ("init", 2, "vader-amazon_tiny", "tiny"),
        ("finish", 1, False) if error else ("finish", 0, True),
    ]


def test_wandb_offline_stores_configuration_and_summary(run_main, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    status, errors, out = run_main(CONFIG, **TINY_RUN, log_to_wandb=True, compute_memory=True, compute_time=True)
    assert status == 0, errors
    (path,) = (out / "wandb").glob("offline-run-*/*.wandb")
    records = stored_records(path)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    summary = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records
        for item in record.summary.update
    }
    results = json.loads((out / "results.json").read_text())

    assert config["tt_rank"] == 2
    assert config["non_linearity"] == AdapterConfig().non_linearity  # in the file, and the default
    assert (run.display_name, run.run_group) == ("vader-amazon_tt_adapter", "tt_adapter")
    assert summary["peak_memory_mib"] == results["peak_memory_mib"] > 100
    assert summary["seconds"] == results["seconds"] > 0
    components = {row["name"]: row for row in results["components"]}
    trained = summary["parameters/adapters/trainable"]
    assert trained == components["adapters"]["trainable"] > 0
    assert sum(row["trainable"] for row in components.values()) == config["trainable_parameters"]
    saved = summary["memory/encoder.block.0/saved_activations"]
    assert saved == results["memory"]["layers"]["encoder.block.0"]["saved_activations"] > 0
    assert summary["time/seconds_per_step"] == results["time"]["seconds_per_step"]
    assert summary["test/vader-amazon/accuracy"] == results["splits"]["test"]["average_metrics"]
    assert [record.exit.exit_code for record in records if record.WhichOneof("record_type") == "exit"] == [0]


def stored_records(path: Path) -> list:
    """Read a .wandb file: 7 bytes, then blocks of 32 KiB with pieces of records, in the format of LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, piece, records = path.read_bytes(), 7, b"", []
    while position < len(content):
        left = 2**15 - position % 2**15
        if left < 7:  # the end of a block is padded
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        piece += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            records.append(Record.FromString(piece))
            piece = b""
    return records
