"""What cannot be swept is said in one line, before anything runs."""

import pytest

from tests.conftest import ROOT
from tests.sweeps.small import KEYS, SWEEP

LORA = str(ROOT / "configs/lora.json")
TT_LORA = str(ROOT / "configs/tt_lora.json")
TWICE = [{"name": "a", "file": LORA}, {"name": "b", "file": LORA}]
RANGE = {"learning_rate": {"log_uniform": [0.001, 0.1]}}


def choose(**keys) -> dict:
    return {"choose": {**SWEEP["choose"], **keys}}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"grid": {"phm_c_init": ["normal", "uniform"]}}, "no configuration of the sweep reads it"),
        ({"grid": {"lerning_rate": [0.1]}}, "did you mean learning_rate"),
        ({"grid": {"tt_rank": 2}}, "must be a list"),
        ({"grid": {"tt_rank": []}}, "must be a list"),
        ({"grid": {"tt_rank": [2, 2]}}, "twice"),
        ({"grid": {"tt_rank": [0, 2]}, "configurations": [TT_LORA]}, "tt_rank is 0"),
        ({"choose": {"space": {"learning_rate": [0.1]}}}, "does not set metric"),
        ({"choose": {"metric": "accuracy"}}, "does not set space"),
        (choose(metric="acuracy"), "vader-amazon has accuracy"),
        (choose(space={"learning_rate": 0.1}), "must be a list of different values"),
        (choose(space={"learning_rate": [0.1, 0.1]}), "must be a list of different values"),
        (choose(space=RANGE), "set choose.trials"),
        (choose(space={}), "choose.space is empty"),
        (choose(space={"learning_rate": {"log_uniform": [0, 1]}}, trials=2), "must begin above 0"),
        (choose(space={"tt_rank": {"integer": [1.5, 3]}}, trials=2), "whole numbers"),
        (choose(space={"tt_rank": {"integer": [3, 1]}}, trials=2), "low below high"),
        (choose(space={"seed": [1, 2]}), "which the sweep sets itself"),
        (choose(space={"phm_rank": [1, 2]}), "no configuration of the sweep reads it"),
        (choose(keys={"output_dir": "x"}), "which the sweep sets itself"),
        (choose(trials=0), "at least 1"),
        (choose(metrics="accuracy"), "did you mean metric"),
        ({"choose": None, "search": True}, "choose is not set"),
        ({"configurations": TWICE}, "a on vader-amazon and b on vader-amazon are the same runs"),
        ({"configurations": [TT_LORA, TT_LORA]}, "twice"),
        ({"configurations": [{"name": "a", "file": LORA}, {"name": "a", "file": TT_LORA}]}, "two configurations"),
        ({"configurations": []}, "empty list"),
        ({"configurations": ["lra"]}, "neither a method nor a .json file"),
        ({"configurations": ["use_LoRAA"]}, "did you mean use_LoRA"),
        ({"configurations": ["tt_basis"]}, "chosen by a number"),
        ({"configurations": [{"keys": {"use_LoRA": True}}]}, "set name"),
        ({"configurations": [{"name": "a"}]}, "neither a file nor keys"),
        ({"configurations": [{"baseline": "tfidf"}]}, "must be one of tf_idf"),
        ({"configurations": [{"baseline": "tf_idf", "keys": {"a": 1}}]}, "a baseline has no keys"),
        ({"configurations": [{"name": "a", "file": LORA, "grid": {"tt_rank": [1, 2]}}]}, "does not read tt_rank"),
        ({"configurations": [{"name": "a", "file": "no.json"}]}, "no.json"),
        ({"configurations": [{"name": "a", "fil": LORA}]}, "did you mean file"),
        ({"tasks": ["vader-amazn"]}, "did you mean 'vader-amazon'"),
        ({"tasks": [{"train_file": "x.csv"}]}, "task_name is not set"),
        ({"tasks": ["vader-amazon", {"task_name": "vader-amazon"}]}, "same name"),
        ({"tasks": ["vader-amazon", {"name": "again", "task_name": "vader-amazon"}]}, "are the same runs"),
        (
            {"tasks": [{"task_name": "file", "train_file": "no.csv", "source_template": "{a}", "labels": ["0", "1"]}]},
            "does not exist",
        ),
        ({"seeds": []}, "empty list"),
        ({"seeds": [1, 1]}, "twice"),
        ({"seeds": [-1]}, "at least 0"),
        ({"seeds": ["1"]}, "a list of whole numbers"),
        ({"keys": {**KEYS, "seed": 3}}, "use seeds"),
        ({"keys": {**KEYS, "low_resource": [16, 32]}}, "grid"),
        ({"hours": 0}, "above 0"),
        ({"cell_hours": 0}, "above 0"),
        ({"workers": 0}, "at least 1"),
        ({"cpus": 1000}, "set cpus to at most that"),
        ({"gpus": 1}, "this machine has 0"),
        ({"gpus": 0.5}, "whole number"),
        ({"verify": 1}, "no cell of the sweep is finished"),
        (choose(space={"learning_rate": [0.1], "tt_rank": [1, 2]}), "in the grid and in the space"),
        ({"grid": {"learning_rate": [0.1, 0.2]}}, "in the grid and in the space"),
        (choose(keys={"learning_rate": 0.5}), "in choose.keys and in the space"),
        (
            {"choose": None, "configurations": [{"name": "a", "file": LORA, "space": {"lora_rank": [1]}}]},
            "choose is not set",
        ),
        ({"configurations": [{"name": "a", "file": LORA, "space": RANGE}]}, "set choose.trials"),
        ({"configurations": [{"name": "a", "file": LORA, "group": ["x"]}]}, "group is"),
        ({"compare": {"a": ["b"]}}, "which no configuration has"),
        ({"compare": {"others": [["others"]]}}, "must be a list of groups"),
        ({"like": str(ROOT / "configs/sweeps/rank.json")}, "which is itself like"),
        ({"launch": "python 'x"}, "No closing quotation"),
        ({"launch": " "}, "launch is empty"),
        ({"tasks": [{"task_name": "file", "train_file": 5}]}, "train_file is 5"),
        ({"tasks": [{"task_name": ["vader-amazon", 5]}]}, "task_name is"),
        ({"tasks": [{"task_name": "vader-amazon", "name": ["x"]}]}, "name is"),
        ({"tasks": [{"task_name": "vader-amazon", "tt_rnk": 2}]}, "did you mean tt_rank"),
        ({"like": "no-such.json"}, "no-such.json"),
        ({"published": {"source": 1, "scores": {}}}, "published must be"),
        ({"published": {"source": "x", "scores": {"LoRA": {"vader-amazon": float("nan")}}}}, "published must be"),
        ({"ray": ""}, "ray is empty"),
        ({"tasks": [{"task_name": "vader-amazon", "seed": 3}]}, "use seeds"),
        ({"tasks": [{"task_name": "vader-amazon", "output_dir": "x"}]}, "sweep sets itself"),
        (choose(space={"learning_rate": [0.1, float("nan")]}), "not finite"),
        (choose(space=RANGE, trials=2_000_000), "trials is 2000000"),
        (choose(space={"learning_rate": {"uniform": [-1e308, 1e308]}}, trials=3), "low below high"),
        (choose(keys={"do_eval": False}), "choose.keys sets do_eval"),
        ({"keys": {**KEYS, "do_test": False}}, "use do_test of run_seq2seq.py"),
        ({"records": "/proc/x/cells.jsonl"}, "records is"),
        ({"cofigurations": []}, "did you mean configurations"),
    ],
)
def test_one_line(sweep, tmp_path, keys, words):
    status, _, errors = sweep(**keys)
    assert status == 2
    assert words in errors[-1]
    assert sum(line.startswith("error: ") for line in errors) == 1
    assert not [*tmp_path.rglob("results.json")]
