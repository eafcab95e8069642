"""Bad input exits with status 2 and one line that names the key; nothing on disk changes."""

import json
import os
import shutil

import pytest

from tests.conftest import TINY_RUN
from third_party.models.t5.configuration_t5 import resolve_name

CONFIG = "configs/tt_adapter.json"
NOTHING = dict.fromkeys(("do_train", "do_eval", "do_test", "load_best_model_at_end"), False) | {"eval_strategy": "no"}


def tree(path):
    return {str(p.relative_to(path)): p.stat().st_mtime_ns for p in path.rglob("*")}


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"tt_rnak": 4}, ["tt_rnak", "did you mean tt_rank?"]),
        ({"tt_d": 40}, ["tt_d is 40", "at most 20"]),
        ({"tt_rank": "four"}, ["tt_rank", "whole number"]),
        ({"low_rank_adapters": True}, ["low_rank_adapters and tensor_train_adapters", "at most one"]),
        ({"tt_shape": [[3, 5], [2, 4]]}, ["tt_shape", "multiply to 15, the input dimension is 32"]),
        ({"tt_shape": [[3, 5], [2]]}, ["tt_shape", "same length"]),
        ({"model_name_or_path": "no/such-model"}, ["model_name_or_path", "no/such-model", "t5-nano"]),
        ({"tokenizer_name": "/no/such/directory"}, ["tokenizer_name", "/no/such/directory"]),
        ({"model_config": "no-such-size"}, ["model_config", "no-such-size"]),
        ({"model_config": {"d_model": "wide"}}, ["model_config", "d_model"]),
        ({"model_config": None}, ["model_name_or_path and model_config are both null"]),
        ({"task_name": "vader-movies"}, ["task_name", "did you mean 'vader-movie'?"]),
        ({"per_device_train_batch_size": 0}, ["per_device_train_batch_size is 0", "at least 1"]),
        ({"learning_rate": float("inf")}, ["learning_rate is inf"]),
        ({"adam_epsilon": -1.0}, ["adam_epsilon is -1.0"]),
        ({"generation_max_length": 1}, ["generation_max_length is 1", "at least 2"]),
        ({"lr_scheduler_kwargs": {"foo": 1}}, ["the trainer cannot be set up", "foo"]),
        ({"lr_scheduler_type": "inverse_sqrt", "lr_scheduler_kwargs": {"timescale": 0}}, ["the trainer", "zero"]),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": -5}}, ["the trainer", "negative power"]),
        ({"dataloader_drop_last": True}, ["dataloader_drop_last"]),
        ({"model_config": {"d_modle": 32}}, ["d_modle", "did you mean d_model?"]),
        ({"model_config": {"vocab_size": 10}}, ["2100 tokens", "10 rows"]),
        ({"model_config": {"num_heads": 0}}, ["model_config", "num_heads of the T5 is 0", "at least 1"]),
        ({"model_config": {"dropout_rate": 2.0}}, ["model_config", "dropout_rate", "below 1"]),
        ({"model_config": {"relative_attention_num_buckets": 1}}, ["model_config", "num_buckets of the T5 is 1"]),
        ({"model_config": {"relative_attention_max_distance": 16}}, ["model_config", "max_distance", "above 16"]),
        ({"model_config": {"feed_forward_proj": "gated-swoosh"}}, ["model_config", "swoosh"]),
        ({"model_config": {"dense_act_fn": "os.system"}, "dry_run": True}, ["model_config", "os.system"]),
        ({"task_name": "vader-movie-rating", "max_target_length": 2}, ["max_target_length 2"]),
        ({"test_dataset_name": "span-corruption"}, ["test_dataset_name", "has no metrics"]),
        (NOTHING, ["do_train", "all false"]),
        ({"do_train": False, "tokenizer_name": None}, ["tokenizer_name is null"]),
        ({"model_config": {"is_encoder_decoder": False}}, ["model_config", "is_encoder_decoder"]),
        ({"model_config": {"pad_token_id": 10**7}}, ["model_config", "pad_token_id of the T5 is 10000000"]),
        ({"experiment_name": "../x"}, ["experiment_name is '../x'"]),
        ({"num_train_epochs": -1}, ["num_train_epochs is -1", "above 0"]),
        ({"learning_rate": float("nan")}, ["learning_rate is nan", "at least 0"]),
        ({"output_dir": ""}, ["output_dir is ''", "non-empty"]),
        ({"model_name_or_path": "outputs/none", "model_config": None}, ["model_name_or_path", "start the run that"]),
        ({"train_sampling_strategy": "by_length"}, ["train_sampling_strategy", '"group_by_length"']),
        ({"generation_config": "/no/such/place"}, ["the trainer cannot be set up", "/no/such/place"]),
        ({"max_source_length": 0}, ["max_source_length is 0", "at least 1"]),
        ({"max_test_samples": 0}, ["max_test_samples is 0"]),
        ({"task_adapter_layers_encoder": [-1]}, ["task_adapter_layers_encoder contains -1", "from 0"]),
        ({"merge_and_export": True}, ["tensor_train_adapters", "cannot be folded into"]),
        ({"dry_run": True, "model_config": {"d_model": "wide"}}, ["model_config"]),
        ({"dry_run": True, "output_dir": "/dev/null/out"}, ["output_dir", "/dev/null"]),
        ({"freeze_cores": "middle"}, ["freeze_cores", '"first", "last" or a list']),
        ({"share_cores": [7]}, ["share_cores contains 7", "2 cores"]),
        ({"tt_rank": 1_000_000}, ["tensor_train_adapters", "parameters to the backbone's", "10 times"]),
        ({"tt_d": 2, "tt_rank": 1_000_000}, ["tensor_train_adapters", "10 times"]),
        ({"output_dir": "/dev/null/out"}, ["output_dir", "/dev/null"]),
        ({"eval_strategy": "no"}, ["load_best_model_at_end"]),
        ({"resume_from_checkpoint": True}, ["resume_from_checkpoint is true"]),
        ({"metric_for_best_model": "f1"}, ["metric_for_best_model", "f1", "accuracy"]),
        ({"task_name": "mrpc", "data_dir": "/no/such/dir"}, ["data_dir", "/no/such/dir"]),
        ({"task_name": ["vader-movie", "vader-moive"]}, ["task_name", "did you mean 'vader-movie'?"]),
        ({"task_name": ["vader-movie", "vader-movie"]}, ["task_name names 'vader-movie' twice"]),
        ({"task_name": ["vader-movie", 3]}, ["task_name", "a string or a list"]),
        ({"task_name": ["vader-movie", "vader-nyt"], "metric_for_best_model": "accuracy"}, ["vader-nyt_accuracy"]),
        ({"task_name": "file"}, ["train_file is null"]),
        ({"task_name": "file", "train_file": "/no/such.csv"}, ["train_file: /no/such.csv does not exist"]),
        ({"task_name": "file", "metrics": ["accurracy"], "labels": ["a", "b"]}, ["metrics", "accurracy", "accuracy"]),
        ({"mixing": "mixed"}, ["mixing", '"proportional"']),
        ({"mixing_temperature": 0.0}, ["mixing_temperature is 0.0", "above 0"]),
        ({"mixing_limit": 0}, ["mixing_limit is 0", "at least 1"]),
        ({"train_sampling_strategy": "batch_rebalance"}, ["train_sampling_strategy", "group_by_length"]),
        ({"train_file": "mine.csv"}, ["train_file is set", "task_name 'file'"]),
        ({"dry_run": True, "seeds": []}, ["seeds is []"]),
        ({"dry_run": True, "task_name": ["vader-nyt", "vader-movie"], "eval_dataset_name": "mrpc"}, ["mrpc"]),
        ({"fsdp": "full"}, ["fsdp is 'full'", "full_shard"]),
        ({"share_cores_among": "tasks"}, ["share_cores_among", "share_cores"]),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_one_clear_line_and_nothing_changed(run_main, tmp_path, overrides, words):
    before = tree(tmp_path)
    status, errors, _ = run_main(CONFIG, **{**TINY_RUN, **overrides})
    assert status == 2
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    assert all(word in errors[0] for word in words), errors
    assert tree(tmp_path) == before


def test_nothing_left_to_train(run_main, tmp_path):
    keys = {name: value for name, value in TINY_RUN.items() if name not in ("tt_rank", "task_reduction_factor")}
    status, errors, _ = run_main("configs/controls/norms_only.json", **keys, unfreeze_layer_norms=False)
    assert (status, len(errors)) == (2, 1)
    assert "no parameter to train" in errors[0]
    assert not tree(tmp_path)


def test_a_run_does_not_replace_what_it_reads(run_main, tmp_path):
    keys = {name: value for name, value in TINY_RUN.items() if name not in ("model_config", "tokenizer_name")}
    source = shutil.copytree(resolve_name("t5-nano"), tmp_path / "out/model")
    before = tree(tmp_path)
    for directory in (tmp_path / "out", source):
        overrides = {"model_name_or_path": str(source), "output_dir": str(directory), "overwrite_output_dir": True}
        status, errors, _ = run_main(CONFIG, **keys | overrides)
        assert (status, len(errors)) == (2, 1)
        assert "model_name_or_path" in errors[0]
        assert "inside output_dir" in errors[0]
    assert tree(tmp_path) == before


def test_a_model_with_a_part_missing(run_main, tmp_path):
    source = shutil.copytree(resolve_name("t5-nano"), tmp_path / "model")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "num_layers": config["num_layers"] + 1}))
    keys = {name: value for name, value in TINY_RUN.items() if name != "model_config"}
    status, errors, out = run_main(CONFIG, **keys | {"model_name_or_path": str(source)})
    assert status == 2
    assert "missing from its file, such as encoder.block.4" in errors[-1]
    assert not out.exists()


def test_a_missing_file(run_main):
    status, errors, _ = run_main("configs/no_such.json")
    assert (status, len(errors)) == (2, 1)
    assert "no_such.json cannot be read: No such file or directory" in errors[0]


def test_no_file_at_all(capfd):
    from run_seq2seq import main

    assert main([]) == 2
    assert "usage: python run_seq2seq.py FILE.json" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_write_permission(run_main, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    status, errors, _ = run_main(CONFIG, **TINY_RUN, output_dir=str(tmp_path / "locked/out"))
    assert (status, len(errors)) == (2, 1)


def test_the_directory_of_something_else(run_main, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    status, errors, _ = run_main(CONFIG, **TINY_RUN, overwrite_output_dir=False)
    assert (status, len(errors)) == (2, 1)
    assert "output_dir" in errors[0]
    assert "files of something else" in errors[0]
    assert "overwrite_output_dir" in errors[0]
    assert tree(tmp_path) == before


def test_help_lists_every_key(capfd):
    from run_seq2seq import main

    assert main(["--help"]) == 0
    shown = capfd.readouterr().out
    assert "tt_rank: a whole number, default 8" in shown
    assert json.dumps("vader-movie") in shown


def test_a_directory_that_is_a_link_to_itself(run_main, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    status, errors, _ = run_main(CONFIG, **TINY_RUN, output_dir=str(tmp_path / "loop/out"))
    assert (status, len(errors)) == (2, 1)
    assert "loop/out" in errors[0]
