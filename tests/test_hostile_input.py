"""Input that nobody writes on purpose: it is one line, quickly, and nothing is left behind or given away."""

import json
import os
import pickle
import re
import socket

import pytest

import report
import run_expressivity
import run_seq2seq
from common.secrets import is_secret, without_secrets
from seq2seq.settings import build, load_settings
from tests.conftest import ROOT, TINY_RUN
from tests.test_bad_input import tree

CONFIG = "configs/tt_adapter.json"
PROGRAMS = [run_seq2seq, run_expressivity]
NESTED = {depth: '{"a": ' + "[" * depth + "]" * depth + "}" for depth in (150, 1_000, 100_000)}


def one_line(capfd, status):
    errors = capfd.readouterr().err.splitlines()
    assert (status, len(errors)) == (2, 1), errors
    assert errors[0].startswith("error: ")
    assert len(errors[0]) < 3000
    return errors[0]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (NESTED[150], "a is nested more than 100 deep"),
        (NESTED[1_000], "is nested more than 100 deep"),
        (NESTED[100_000], "is nested more than 100 deep"),
        ('{"seed": ' + "9" * 5_000 + "}", "a number of thousands of digits"),
        ('{"seed": 99999999999999999999}', "seed has a number of 20 digits; the largest is 9223372036854775807"),
        ('{"experiment_name": "a\\u0000b"}', "experiment_name has a text with the character NUL"),
        ('{"output_dir": "\\ud800"}', "output_dir has a text with half a surrogate pair"),
        ('{"a\\ud800": 1}', "has a text with half a surrogate pair"),
        ('{"seed": 1, "seed": 2}', "sets seed twice, to different values; set it once"),
        ('{"seed": 1, "seed": true}', "sets seed twice"),
        ('{"model_config": {"d_model": 8, "d_ff": 8, "d_model": 16}}', "sets d_model twice"),
        ('{"A": [{"b": {"c": 1, "c": 2}}]}', "sets c twice"),
    ],
    ids=lambda value: value[:20],
)
def test_json(program, text, words, tmp_path, capfd):
    path = tmp_path / "x.json"
    path.write_text(text)
    assert words in one_line(capfd, program.main([str(path)]))


def test_a_key_may_be_set_twice_to_the_same_value(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"tt_rank": 3, "tt_rank": 3, "model_config": {"d_ff": 8, "d_ff": 8}}')
    assert load_settings(str(path), [])[0].adapter.tt_rank == 3


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("seed", "9" * 5_000, "a number of thousands of digits"),
        ("tt_shape", "[" * 1_000 + "]" * 1_000, "--tt_shape is nested more than 100 deep"),
        ("model_config", '{"d_ff": 8, "d_ff": 16}', "--model_config sets d_ff twice"),
        ("experiment_name", "\udcff", "half a surrogate pair"),
        ("learning_rate", "1e999", "learning_rate is inf; it must be at least 0"),
        ("lr_scheduler_kwargs", '{"x": NaN}', "lr_scheduler_kwargs"),
        ("model_config", '{"dropout_rate": 1e999}', "model_config contains inf; numbers must be finite"),
        ("eval_delay", "NaN", "eval_delay is nan; it must be at least 0"),
        ("ScaleNorm_scale", "-Infinity", "ScaleNorm_scale is -inf"),
        ("experiment_name", "x" * 5_000, "output_dir is"),
        ("output_dir", "/tmp/" + "x/" * 2_500, "output_dir is"),
        ("train_file", "x" * 5_000 + ".csv", "train_file is set, but only task_name 'file' reads it"),
        ("model_name_or_path", "x" * 5_000, "x"),
        ("task_name", json.dumps(["mrpc"] * 200_000), "task_name names 'mrpc' twice"),
        ("task_name", json.dumps([f"task {i}" for i in range(100_000)]), "an unknown task"),
        ("seeds", json.dumps(list(range(100_000))), "ask for 100,000 runs; the largest series has 1,000"),
        ("hub_token", "5", "hub_token is (hidden); it must be a string or null"),
    ],
    ids=lambda value: value[:20],
)
def test_overrides(key, text, words, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = {name: TINY_RUN[name] for name in ("model_name_or_path", "model_config", "tokenizer_name")}
    given = {name: json.dumps(value) for name, value in keys.items()} | {key: text}
    arguments = [part for pair in given.items() for part in (f"--{pair[0]}", pair[1])]
    assert words in one_line(capfd, run_seq2seq.main([str(ROOT / CONFIG), *arguments, "--dry_run"]))
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=["a pipe", "a directory", "a socket", "a device"])
def no_file(request, tmp_path):
    """(what it is, a path whose suffix is .csv)"""
    path = tmp_path / "x.csv"
    if request.param == "a pipe":
        os.mkfifo(path)
    elif request.param == "a directory":
        path.mkdir()
    elif request.param == "a socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.symlink_to("/dev/zero")
    return request.param, path


def test_what_is_no_file_is_not_waited_for(no_file, tmp_path, run_main, capfd):
    kind, path = no_file
    for program in PROGRAMS:
        assert f"{path} is {kind}; it must be a file" in one_line(capfd, program.main([str(path)]))
    keys = {**TINY_RUN, "task_name": "file", "train_file": str(path), "source_template": "{text}"}
    status, errors, out = run_main(CONFIG, **keys)
    assert (status, len(errors)) == (2, 1)
    assert f"train_file: {path} is {kind}; it must be a file" in errors[0]
    assert not out.exists()
    os.renames(path, tmp_path / "runs/a/results.json")
    (tmp_path / "runs/a/resolved_config.json").write_text("{}")
    line = one_line(capfd, report.main([str(tmp_path / "runs"), "--output_dir", str(tmp_path / "report")]))
    assert ("1 unfinished" if kind == "a directory" else f"is {kind}; it must be a file") in line


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"eval_accumulation_steps": 0}, "eval_accumulation_steps is 0; it must be at least 1"),
        ({"eval_do_concat_batches": False}, "eval_do_concat_batches is false, but the predictions of a split"),
        ({"batch_eval_metrics": True}, "batch_eval_metrics is true, but the predictions of a split"),
        ({"dataloader_persistent_workers": True}, "dataloader_num_workers is 0; set it to at least 1"),
        ({"dataloader_prefetch_factor": 2}, "dataloader_num_workers"),
        ({"predict_with_generate": False, "metric_for_best_model": "accuracy"}, "metric_for_best_model is 'accuracy'"),
        ({"metric_for_best_model": ""}, "metric_for_best_model is ''"),
        ({"label_names": ["x"]}, 'label_names is ["x"], but a batch has no other labels; set it to ["labels"]'),
        ({"use_liger_kernel": True}, "use_liger_kernel is true"),
        (
            {"save_only_model": True},
            "save_only_model is true, but a checkpoint without its optimizer cannot be resumed",
        ),
        ({"lr_scheduler_kwargs": "x"}, "lr_scheduler_kwargs is not valid JSON"),
        ({"accelerator_config": "/no.json"}, "accelerator_config: /no.json cannot be read"),
        ({"debug": "underflow_overflow"}, 'debug is "underflow_overflow", but'),
        ({"generation_max_length": 10**12}, "it must be at most 10,000"),
        ({"max_steps": 10**12}, "it must be at most 10,000,000"),
        ({"max_steps": 0}, "max_steps is 0; it must be at least 1, or -1"),
        ({"per_device_eval_batch_size": 10**12}, "it must be at most 1,000,000"),
        ({"optim_args": "momentum"}, "optim_args is 'momentum'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_training_keys_that_fail_later_are_found_first(run_main, tmp_path, overrides, words):
    before = tree(tmp_path)
    status, errors, _ = run_main(CONFIG, **{**TINY_RUN, **overrides})
    assert (status, len(errors)) == (2, 1), errors
    assert words in errors[0]
    assert tree(tmp_path) == before


SECRETS = {"hub_token": "hf_secret_1", "lr_scheduler_kwargs": {"api_key": "hf_secret_2", "min_lr": 0.0}}


def test_secrets_are_neither_printed_nor_written(run_main, capfd):
    config = {
        **TINY_RUN,
        "max_train_samples": 16,
        **SECRETS,
        "lr_scheduler_kwargs": {},
        "metric_for_best_model": "loss",
    }
    status, _, out = run_main(CONFIG, **config)
    assert status == 0
    for path in [path for path in out.rglob("*") if path.is_file()]:
        assert b"hf_secret" not in path.read_bytes(), path
    capfd.readouterr()
    assert run_seq2seq.main([str(out / "resolved_config.json"), "--dry_run", "--hub_token", "hf_secret_1"]) == 0
    assert "hf_secret" not in "".join(capfd.readouterr()) + (out / "dry_run.json").read_text()
    status, errors, _ = run_main(CONFIG, **{**TINY_RUN, **SECRETS})
    assert status == 2
    assert "hf_secret" not in "".join(errors)


def test_keys_without_an_effect_are_said(run_main):
    keys = ["fp16", "tf32", "do_predict", "sortish_sampler", "remove_unused_columns", "dataloader_in_order"]
    values = dict.fromkeys(keys, True) | {"remove_unused_columns": False, "dataloader_in_order": False}
    values |= {"fsdp_config": "x", "optim_args": "foo=1", "hub_token": "hf_x", "ddp_backend": "gloo", "run_name": "a"}
    values |= {"dataloader_multiprocessing_context": "spawn", "include_for_metrics": ["inputs"]}
    status, errors, _ = run_main(CONFIG, **TINY_RUN, **values, dry_run=True)
    assert (status, len(errors)) == (0, 1)
    assert errors[0].startswith("warning: ")
    assert set(values) <= set(re.findall(r"\w+", errors[0]))


def test_secrets_are_not_pickled():
    training = build({"output_dir": "x", "hub_token": "hf_secret_1", "accelerator_config": {}}).training
    assert training.hub_token == "hf_secret_1"
    stored = pickle.dumps(training)
    assert b"hf_secret" not in stored
    assert pickle.loads(stored).hub_token is None


def test_secrets_of_the_command_line_are_not_repeated(capfd):
    for arguments in (
        ["--hub_token", "hf_secret_1", "hf_secret_1"],
        ["--hub_token=hf_secret_1", "--tt_rank", "hf_secret_1"],
    ):
        assert "(hidden)" in one_line(capfd, run_seq2seq.main([str(ROOT / CONFIG), *arguments]))


def test_which_keys_hold_secrets():
    for name in ("hub_token", "push_to_hub_token", "token", "WANDB_API_KEY", "apiKey", "aws_secret", "db.password"):
        assert is_secret(name), name
    for name in ("key", "tokenizer_name", "pad_token_id", "tokens", "secretary", 3):
        assert not is_secret(name), name
    for name in ("secret_key", "private_key", "hubToken", "auth", "pwd", "credentials"):
        assert is_secret(name), name
    nested = {"a": [{"token": "x", "b": 1}], "hub": {"my_token": "x", "storage_options": {"secret": "x"}}}
    assert without_secrets(nested) == {"a": [{"b": 1}], "hub": {"storage_options": {}}}


@pytest.mark.parametrize("address", ["https://me:hf_secret_1@host/x", "https://hf_secret_1@host/x"])
def test_secrets_in_addresses_are_neither_printed_nor_written(run_main, capfd, address):
    overrides = {**TINY_RUN, "dry_run": True, "generation_config": address, "push_to_hub": False}
    status, _, out = run_main(CONFIG, **overrides, hub_model_id=address)
    assert status == 0
    assert "hf_secret" not in (out / "dry_run.json").read_text()
    assert "(hidden)@host/x" in (out / "dry_run.json").read_text()
