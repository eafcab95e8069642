"""Names of configurations, and which runs are one."""

from itertools import product

import pytest

from seq2seq.comparison.configurations import collect
from seq2seq.settings import own_defaults
from tests.report.written_runs import rows_of, write_run


@pytest.fixture
def names(tmp_path):
    """names((key: value) of each run, .., experiment=.., ..) -> sorted names of the configurations."""

    def call(*configs, experiment="x", seeds=False, **results):
        number = len(list(tmp_path.iterdir()))
        for i, config in enumerate(configs, number):
            seed = i if seeds else 1
            write_run(tmp_path / str(i), experiment, seed=seed, config={**own_defaults(), **config}, **results)
        return sorted(c.name for c in collect([str(tmp_path)], "test")[0])

    return call


def test_a_sweep_is_named_by_its_keys(names):
    rates = {0.001: "0.001", 3e-5: "3e-05"}
    expected = sorted(f"tt_rank={rank}, lr={rates[rate]}" for rank, rate in product((2, 4, 8), rates))
    assert names(*({"tt_rank": rank, "learning_rate": rate} for rank, rate in product((2, 4, 8), rates))) == expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"use_bias": True}, {"use_bias": False}, ["no use_bias", "use_bias"]),
        ({"lora_alpha": 16.0}, {"lora_alpha": None}, ["lora_alpha=16", "lora_alpha=null"]),
        ({"tt_shape": [[2, 3], [3, 2]]}, {}, ["tt_shape=[[2, 3], [3, 2]]", "tt_shape=null"]),
        ({"weight_decay": 0.1}, {}, ["default weight_decay", "weight_decay=0.1"]),
        ({"num_train_epochs": 3}, {"num_train_epochs": 3.0}, ["x"]),
        (
            {"model_name_or_path": "/models/t5-small/"},
            {"model_name_or_path": "b/flan"},
            ["model=flan", "model=t5-small"],
        ),
        ({"max_train_samples": 100}, {"max_train_samples": 200}, ["train_samples=100", "train_samples=200"]),
        ({"train_file": "a/clean.csv"}, {"train_file": "b/clean.csv"}, ["x"]),
        ({"train_file": "a/clean.csv"}, {"train_file": "a/noisy.csv"}, ["train_file=clean", "train_file=noisy"]),
        ({"eval_steps": 10}, {"eval_steps": 20}, ["x"]),
        (
            {"eval_steps": 10, "load_best_model_at_end": True},
            {"eval_steps": 20, "load_best_model_at_end": True},
            ["eval_steps=10", "eval_steps=20"],
        ),
    ],
)
def test_two_runs_that_differ_in_one_key_differ_in_one_word(names, one, other, expected):
    assert names(one, other) == expected


def test_keys_that_leave_the_scores_alone_do_not_split_a_configuration(names):
    incidental = {
        "output_dir": "elsewhere",
        "data_dir": "d",
        "test_file": "t",
        "per_device_eval_batch_size": 7,
        "logging_steps": 3,
        "save_steps": 9,
        "dataloader_num_workers": 2,
        "max_val_samples": 5,
        "report_to": "tensorboard",
    }
    assert names({}, *({key: value} for key, value in incidental.items()), seeds=True) == ["x"]


def test_methods_are_named_first_and_only_with_keys_that_they_read(names):
    tt = {"use_TTLoRA": True, "learning_rate": 0.001}
    names({**tt, "tt_rank": 2}, {**tt, "tt_rank": 4}, method="use_TTLoRA", keys_read=["use_TTLoRA", "tt_rank"])
    lora = {"use_LoRA": True, "learning_rate": 0.001, "tt_rank": 4}
    found = names(lora, method="use_LoRA", keys_read=["use_LoRA", "lora_rank"])
    assert found == ["use_LoRA", "use_TTLoRA, tt_rank=2", "use_TTLoRA, tt_rank=4"]


def test_a_key_that_is_not_read_does_not_split_a_configuration(names):
    assert names({"tt_rank": 2}, {"tt_rank": 4}, keys_read=["lora_rank"], seeds=True) == ["x"]


def test_older_results_do_not_say_what_is_read(names):
    names({"use_TTLoRA": True, "tt_rank": 2}, {"use_TTLoRA": True}, method="use_TTLoRA")
    assert names({"use_LoRA": True}, method="use_LoRA") == [
        "use_LoRA",
        "use_TTLoRA, tt_rank=2",
        "use_TTLoRA, tt_rank=8",
    ]


def test_a_run_of_an_older_version_has_the_defaults_of_keys_that_were_added(names, tmp_path):
    write_run(tmp_path / "older", "x", seed=7)
    assert names({}) == ["x"]
    assert names({"tt_pad": True}) == ["no tt_pad", "tt_pad"]


def test_names_of_experiments_stay(names):
    names({"tt_rank": 2}, experiment="a")
    assert names({"tt_rank": 4}, {"tt_rank": 8}, experiment="b") == ["a", "b (tt_rank=4)", "b (tt_rank=8)"]


def test_long_names_lose_keys_that_are_not_needed(tmp_path, make_report):
    for i in range(3):
        config = {"tt_rank": 2**i, "learning_rate": 0.001 * i, "warmup_steps": 100 * i, "weight_decay": 0.01 * i}
        write_run(tmp_path / f"runs/{i}", config={**config, "label_smoothing_factor": 0.1 * i}, history=None)
    rows = {row["configuration"]: row["settings"] for row in rows_of(make_report(tmp_path / "runs")[2])}
    assert rows == {
        f"tt_rank={2**i}, lr={0.001 * i:g}, warmup={100 * i}": f"tt_rank={2**i}, lr={0.001 * i:g}, warmup={100 * i}, "
        f"weight_decay={0.01 * i:g}, label_smoothing_factor={0.1 * i:g}"
        for i in range(3)
    }


def test_values_that_are_the_same_when_shortened_are_numbered(names):
    templates = [f"a long template: {middle} and its equally long end" for middle in ("{one}", "{two}")]
    found = names(*({"source_template": template} for template in templates))
    assert len(set(found)) == 2
    assert all(len(name) < 50 for name in found)
    assert [name[-2:] for name in found] == ["#1", "#2"]


def test_secrets_never_reach_a_name(names):
    assert not any("hf_" in name for name in names({"my_token": "hf_1"}, {"my_token": "hf_2", "tt_rank": 2}))
