"""Keys of older files, keys that nothing reads, overrides that take others along, and what is no JSON."""

import re
from pathlib import Path

import pytest

from common.errors import ConfigError
from seq2seq.settings import load_settings
from seq2seq.unread import unread_keys
from tests.conftest import ROOT
from tests.seq2seq.fork_files import loaded


def test_another_task_takes_its_evaluation_sets_along(fork):
    def tasks(*overrides):
        settings, lines = loaded(fork(), *overrides)
        return [settings.data.tasks_of(split)[0] for split in ("train", "validation", "test")], lines[-1]

    assert tasks()[0] == ["mrpc"] * 3
    names, said = tasks("--task_name", "cola")
    assert names == ["cola"] * 3
    assert "eval_dataset_name follows --task_name; test_dataset_name follows --task_name" in said
    assert tasks("--task_name", "cola", "--test_dataset_name", "rte")[0] == ["cola", "cola", "rte"]
    assert tasks("--test_dataset_name", "rte")[0] == ["mrpc", "mrpc", "rte"]


def test_another_model_takes_its_tokenizer_along(fork):
    def tokenizer(*overrides, **keys):
        return loaded(fork(**keys), *overrides)[0].model.tokenizer_name

    assert tokenizer() == "t5-base"
    assert tokenizer("--model_name_or_path", "t5-nano") is None
    assert tokenizer("--model_name_or_path", "t5-nano", "--tokenizer_name", "t5-small") == "t5-small"
    assert tokenizer("--model_name_or_path", "t5-nano", tokenizer_name="my/own") == "my/own"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ("epoch", "epoch", 1000)),
        ({"eval_strategy": "steps", "evaluation_strategy": ..., "eval_steps": 150}, ("steps", "steps", 150)),
        ({"eval_strategy": "steps", "evaluation_strategy": ..., "eval_steps": 500}, ("steps", "steps", 1000)),
        ({"evaluation_strategy": "steps", "eval_steps": 500}, ("steps", "steps", 500)),
        ({"evaluation_strategy": "steps", "logging_steps": 20}, ("steps", "steps", 20)),
        ({"evaluation_strategy": "steps"}, ("steps", "steps", 500)),
        ({"evaluation_strategy": "steps", "eval_steps": 150, "save_steps": ...}, ("steps", "steps", 150)),
        (
            {"eval_strategy": "steps", "evaluation_strategy": ..., "eval_steps": 0.1, "save_steps": 0.3},
            ("steps", "steps", 0.3),
        ),
        ({"save_strategy": "epoch"}, ("epoch", "epoch", 1000)),
    ],
)
def test_saving_follows_the_evaluation(fork, keys, expected):
    """In older versions of transformers load_best_model_at_end implied it, and save_steps did not count."""
    training = loaded(fork(**keys))[0].training
    assert (training.eval_strategy, training.save_strategy, training.save_steps) == expected


def test_the_command_line_decides_when_to_save(fork):
    training = loaded(fork(evaluation_strategy="steps", eval_steps=10), "--save_steps", "20")[0].training
    assert (training.eval_steps, training.save_steps) == (10, 20)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"adafactor": "False"}, 'adafactor is "False"; it must be true or false'),
        ({"ttcore_checkpointing": 1}, "ttcore_checkpointing is 1; it must be true or false"),
        ({"warmup_ratio": "0.1"}, 'warmup_ratio is "0.1"; it must be a number'),
        ({"warmup_ratio": 1.0}, "warmup_ratio is 1.0; it must be at least 0 and below 1"),
        ({"model_revision": "v2"}, 'model_revision is "v2"; only "main" is supported: name a local directory'),
        ({"config_name": "t5-small"}, 'config_name is "t5-small"; only null is supported'),
        ({"evaluation_strategy": "epoch", "eval_strategy": "no"}, "are the same key; set only eval_strategy"),
        ({"use_TTLoRA": True, "TTLoRA_init": "kaiming_zero", "tt_shape": 5}, "tt_shape is 5; it must be a list"),
        ({"use_LoRA": True, "lora_dense": True, "tt_rank": 0}, "tt_rank is 0; it must be at least 1"),
        ({"use_LoRA": True, "tt_rank": -1}, "lora_rank is -1; it must be at least 1 (read as a ttcompacter file: "),
        ({"use_LoRA": True, "tt_rank": "2"}, 'tt_rank is "2"; it must be a whole number'),
        ({"experiment_name": ["a"]}, 'experiment_name is ["a"]; it must be a string'),
        ({"experiment_name": None}, "experiment_name is null; it must be a string"),
        ({"task_name": ...}, "task_name is not set, which a ttcompacter file must do"),
    ],
)
def test_values_of_older_keys_that_mean_nothing(fork, keys, words):
    with pytest.raises(ConfigError) as error:
        load_settings(fork(**keys), [])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_said_of_single_keys(fork):
    keys = {"use_TTLoRA": True, "TTLoRA_init": "kaiming_zero", "naive": True, "max_seq_length": 128, "use_bias": False}
    settings, notes = load_settings(fork(**keys, ttcore_checkpointing=True, use_checkpointing=False), [])
    assert settings.adapter.TTLoRA_init == "kaiming"
    assert settings.adapter.use_checkpointing is True
    _, line = notes.lines()
    assert "\n" not in line
    for words in (
        "evaluation_strategy is now called eval_strategy",
        "save_strategy is set to epoch",
        'TTLoRA_init "kaiming_zero" is now called "kaiming"',
        "with TTLoRA_init kaiming_zero, 2 of 3 cores started as zero and none would ever have been trained",
        "ttcore_checkpointing is read as use_checkpointing true",
        "; ignored: ",
        "naive",
        "logging_dir",
        "save_steps",
    ):
        assert words in line
    for more in ({"tt_d": 2}, {"tt_d": ..., "auto_shape_mode": "skewed"}, {"use_TTLoRA": False}):
        _, line = loaded(fork(**{**keys, **more}))[1]
        assert "kaiming" in line
        assert "started as zero" not in line
    _, line = loaded(fork(**keys, ttlora_separate=True, tt_d=5))[1]
    assert "4 of 5 cores started as zero" in line


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"warmup_ratio": 0.1, "warmup_steps": ...}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.0}, {"warmup_steps": 500}),
        ({"warmup_ratio": 0.1}, {"warmup_steps": 500}),
        ({"adafactor": True}, {"optim": "adafactor"}),
        ({"adafactor": False}, {}),
        ({"evaluate_during_training": True, "evaluation_strategy": ...}, {"eval_strategy": "steps"}),
        ({"model_revision": "main", "config_name": None}, {}),
        ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}),
        ({"no_cuda": True}, {"use_cpu": True}),
        ({"per_gpu_train_batch_size": 7, "per_device_train_batch_size": ...}, {"per_device_train_batch_size": 7}),
        ({"val_max_target_length": 9}, {"generation_max_length": 9}),
    ],
)
def test_keys_that_transformers_dropped_keep_their_meaning(fork, keys, expected):
    given = loaded(fork(**keys))[0].given
    assert expected.items() <= given.items()
    assert not (set(keys) - set(expected)) & set(given)


@pytest.mark.parametrize(
    ("config", "overrides", "expected"),
    [
        ("lora", ["--tt_rank", "4", "--tt_d", "2"], {"use_LoRA": ["tt_rank", "tt_d"]}),
        ("lora", ["--tt_rank", "8", "--tt_d", "3"], {}),  # the defaults
        ("tt_lora", ["--lora_rank", "4"], {"use_TTLoRA": ["lora_rank"]}),
        ("tt_lora", ["--train_task_adapters", "true"], {"use_TTLoRA": ["train_task_adapters"]}),
        ("tt_lora", ["--train_task_adapters", "true", "--keep_serial_adapter", "true"], {}),
        ("tt_adapter", ["--task_expansion_factor", "1"], {"tensor_train_adapters": ["task_reduction_factor"]}),
        ("tt_adapter", ["--activate_last_core"], {"tensor_train_adapters": ["activate_last_core"]}),
        ("tt_adapter", ["--use_checkpointing"], {"tensor_train_adapters": ["use_checkpointing"]}),
        ("tt_adapter_nonlinear_cores", ["--activate_last_core", "--use_checkpointing"], {}),
        ("tt_adapter", ["--tt_shape", "[[16, 16], [8, 8]]", "--tt_d", "2"], {"tensor_train_adapters": ["tt_d"]}),
        ("baseline", ["--tt_rank", "4"], {"full fine-tuning": ["tt_rank"]}),
        ("tt_adapter", ["--tokenizer_vocab_size", "90"], {"a pretrained model": ["tokenizer_vocab_size"]}),
        ("tt_adapter", ["--mixing", "equal"], {"a single task": ["mixing"]}),
        ("vader_multitask", ["--mixing", "equal"], {}),
        ("tt_adapter", ["--target_column", "y"], {'tasks other than "file"': ["target_column"]}),
    ],
)
def test_keys_that_nothing_reads_are_said(config, overrides, expected):
    settings, notes = load_settings(str(ROOT / f"configs/{config}.json"), overrides)
    notes.unread = unread_keys(settings)
    assert notes.unread == expected
    assert len(notes.lines()) == bool(expected)


def test_a_key_that_is_set_twice_is_said(fork, tmp_path):
    path = tmp_path / "twice.json"
    text = Path(fork()).read_text()
    path.write_text(text[:-1] + ', "evaluation_strategy": "steps", "learning_rate": 0.0003}')
    settings, lines = loaded(str(path))
    assert settings.training.eval_strategy == "steps"
    assert "evaluation_strategy is set twice, and the last value counts" in lines[1]
    assert "learning_rate" not in lines[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{\n"a": 1,\n}', "; no comma may stand before }"),
        ('{\n"a": [1, 2,\n]}', "; no comma may stand before ]"),
        ('{\n"a": 1, // why\n"b": 2}', "; JSON has no comments"),
        ('# why\n{"a": 1}', "line 1 column 1 (char 0); JSON has no comments"),
        ('{"a" 1}', "line 1 column 6 (char 5)"),
    ],
)
def test_what_is_not_json_is_an_error_with_its_place(tmp_path, text, words):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_settings(str(path), [])
    assert re.match(re.escape(str(path)) + r" is not valid JSON: [^\n]* line \d+ column \d+ ", str(error.value))
    assert str(error.value).endswith(words)


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path):
    """Some editors write one in front of UTF-8."""
    path = tmp_path / "x.json"
    path.write_text('{"tt_rank": 5}', encoding="utf-8-sig")
    assert load_settings(str(path), [])[0].adapter.tt_rank == 5
