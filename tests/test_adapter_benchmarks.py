"""The benchmarks of merging and memory run, and their results that do not depend on time."""

import argparse
import importlib
import json
import sys

import pytest
import torch

from adapters import METHODS
from tests.conftest import ROOT
from utils import get_adapter_config

SCRIPTS = ("merge_drift", "merged_inference", "training_memory", "training_step", "whole_run")


@pytest.fixture
def run(run_script):
    """run("merge_drift", "--rank", 2 ..) -> (exit status, lines of output, lines of errors)."""
    return lambda script, *arguments: run_script(f"benchmarks/{script}.py", *arguments)


@pytest.mark.parametrize("moving", [[], ["--moving"]])
def test_our_weights_do_not_drift_and_those_of_peft_do(run, moving):
    pytest.importorskip("peft")
    status, lines, _ = run("merge_drift", "--model", "tiny", "--rank", 2, "--cycles", 3, 1, *moving)
    rows = [line.split() for line in lines[3:]]
    assert status == 0
    assert [row[:2] for row in rows] == [[d, n] for d in ("float32", "bfloat16", "float16") for n in "13"]
    for dtype, _, our_drift, our_changed, peft_drift, peft_changed, tt_drift, tt_changed, *losses in rows:
        assert (our_drift, our_changed) == (tt_drift, tt_changed) == ("0", "0%")
        our_loss, peft_loss, tt_loss = map(float, losses)
        assert 0 < our_loss < 0.2
        assert 0 < tt_loss < 0.2
        if dtype != "float32":
            assert float(peft_drift) > 1e-5
            assert float(peft_changed.rstrip("%")) > 1
            assert our_loss <= 1.1 * peft_loss


def test_every_contestant_generates_the_same_and_is_timed(run):
    sizes = ["--batch", 1, "--source", 4, "--new_tokens", 2, "--rounds", 2]
    status, lines, errors = run("merged_inference", "--model", "tiny", *sizes)
    assert status == 0, errors
    found = {line[:20].strip(): line[20:].split() for line in lines[2:]}
    branches = {f"{kind}, {mode}" for kind in ("TT-LoRA", "LoRA") for mode in ("merged", "parallel")}
    assert found.keys() == {"plain transformers", "plain, again"} | branches
    assert found["plain transformers"][1:] == ["1.000"] * 4
    assert all(float(seconds) > 0 for seconds, *_ in found.values())


def test_our_lora_takes_the_memory_of_peft(run):
    pytest.importorskip("peft")
    arguments = ["--model", "tiny", "--batch", 2, "--source", 6, "--target", 3, "--rank", 2]
    found = {}
    for name in ("peft LoRA", "use_LoRA"):
        status, lines, errors = run("training_memory", *arguments, "--step-of", name)
        assert status == 0, errors
        found[name] = json.loads(lines[-1])
    peft, ours = found.values()
    assert peft["trained"] == ours["trained"] == 2 * 8 * (32 + 48)  # rank, layers, sides
    assert peft["before"] == ours["before"]
    assert ours["peak"] <= 1.01 * peft["peak"]


def steps(lines: list[str]) -> list[dict[str, str]]:
    """The rows of the table of training_step.py."""
    rows = []
    for line in lines[2:]:
        named, cells = line[:36], line[36:].replace(" .. ", "..").replace(" (", "(").split()
        columns = ("parameters", "ms", "/ LoRA", "quartiles", "/ equal", "/ rank", "MiB saved", "saved", "MiB", "peak")
        dtype, name = named.split(maxsplit=1)
        rows.append({"dtype": dtype, "name": name.strip(), **dict(zip(columns, cells, strict=True))})
    return rows


def test_steps_of_peft_methods_are_timed_and_weighed(run):
    sizes = ["--rounds", 2, "--rows", 2, "--length", 64, "--hidden", 384, "--intermediate", 384, "--rank", 8]
    dtypes = ["--dtypes", "float32", "bfloat16"]
    status, lines, errors = run(
        "training_step", "--model", "llama-block", *sizes, *dtypes, "--methods", "tt_lora skewed"
    )
    assert status == 0, errors
    rows = steps(lines)
    assert [row["dtype"] for row in rows] == ["float32"] * 2 + ["bfloat16"] * 2
    for lora, ours in (rows[:2], rows[2:]):
        assert (lora["name"], ours["name"]) == ("peft LoRA r8", "tt_lora skewed")
        assert lora["parameters"] == ours["parameters"]  # a skewed train has the parameters of LoRA
        assert ours["/ equal"].endswith("(r8)")
        assert float(ours["saved"]) <= 1  # layers are too large here for autograd's own operations, which save more


def test_whole_steps_of_t5_are_timed_beside_loras_of_equal_size_and_rank(run):
    arguments = ["--rounds", 1, "--rows", 2, "--length", 6, "--target", 3, "--rank", 2, "--threads", 1]
    methods = ["lora", "tt_lora square", "tt_lora_attention", "bitfit", "baseline"]
    status, lines, errors = run("training_step", "--model", "tiny", *arguments, "--methods", *methods)
    assert status == 0, errors
    rows = {row["name"]: row for row in steps(lines)}
    assert [*rows][-5:] == methods
    assert rows["peft LoRA r2"]["parameters"] == "1,280"  # rank, layers, sides: 2 * 8 * (32 + 48)
    assert rows["peft LoRA r2 q,v"]["parameters"] == "1,536"  # 2 * 12 * (32 + 32)
    assert rows["lora"]["parameters"] == rows["peft LoRA r8"]["parameters"]
    assert all(rows["lora"][column].endswith("(r8)") for column in ("/ equal", "/ rank"))
    assert (rows["tt_lora square"]["/ rank"], rows["bitfit"]["/ rank"], rows["baseline"]["/ equal"]) == (
        "full",
        "-",
        "-",
    )
    assert float(rows["lora"]["MiB"]) < float(rows["baseline"]["MiB"])


@pytest.fixture
def steps_modules(monkeypatch):
    """The modules of training_step.py: its models, and models in training."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "benchmarks"), *sys.path])
    return importlib.import_module("training_step_models"), importlib.import_module("training_step_trained")


def test_every_method_has_steps_to_measure(steps_modules):
    models, _ = steps_modules
    measured = {name: get_adapter_config(keys) for name, keys in models.T5_METHODS.items()}
    assert {method for config in measured.values() for method in config.methods.values()} == set(METHODS)
    assert set(models.T5Models.default) <= measured.keys()


def test_models_share_a_backbone_that_no_step_changes(steps_modules):
    models, training = steps_modules
    args = argparse.Namespace(model="tiny", device="cpu", rows=2, length=4, target=2)
    family = models.T5Models(args, torch.float32)
    before = {name: tensor.clone() for name, tensor in family.backbone.items()}
    for model in (family.lora(2), family.method("tt_lora"), family.method("baseline")):
        trained = training.Trained(model, family.loss, "cpu", False)
        start = [parameter.detach().clone() for parameter in trained.parameters]
        assert trained.step() > 0
        assert any(not torch.equal(old, new) for old, new in zip(start, trained.parameters, strict=True))
        assert all(torch.equal(tensor, before[name]) for name, tensor in family.backbone.items())


def test_a_whole_run_has_the_losses_and_the_scores_of_the_stock_trainer(run, tiny_backbone):
    """Of a backbone without dropout, whose random numbers would differ."""
    sizes = ["--samples", 24, "--predicted", 8, "--batch", 12, "--rounds", 1]
    arguments = ["--model", tiny_backbone, "--task", "vader-amazon", *sizes]
    status, lines, errors = run("whole_run", *arguments, "--switch", "split_by_length=true", "max_grad_norm=0.5")
    assert status == 0, errors
    stock, ours, switched = (line.split()[-11:] for line in lines[-3:])
    assert [line[:22].strip() for line in lines[-3:]] == ["Seq2SeqTrainer, peft", "ours", "ours, switched"]
    assert ours[-3:-1] == stock[-3:-1]  # loss, accuracy
    assert float(ours[-1]) < 1e-6
    assert all(float(row[0]) > 0 for row in (stock, ours, switched))


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own(run):
    arguments = ["--batch", 2, "--source", 6, "--target", 3, "--contestants", "use_TTLoRA"]
    status, lines, errors = run("training_memory", "--model", "tiny", *arguments)
    assert status == 0, errors
    (row,) = lines[2:]
    _, before, *peaks, highest, _, ratio = map(float, row.removeprefix("use_TTLoRA").split())
    assert 0 < before < highest == max(peaks)
    assert ratio == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_wrong_arguments_end_in_one_line(run, script):
    wrong_values = (["--rounds", 0], ["--switch", "bf16"]) if script == "whole_run" else (["--rank", 0],)
    for wrong in (*wrong_values, ["--rnk", 2], ["--model", "t6"]):
        status, _, errors = run(script, *wrong)
        assert status == 2
        assert len(errors) == 1
        assert errors[0].startswith("error: ")


def test_methods_and_threads_that_there_are_not_end_in_one_line(run):
    for wrong in (
        ["--methods", "meta_tt square"],
        ["--model", "llama-block", "--methods", "lora"],
        ["--threads", 9999],
    ):
        status, lines, errors = run("training_step", *wrong)
        assert (status, len(lines), len(errors)) == (2, 0, 1)
        assert errors[0].startswith(f"error: argument {wrong[-2]}: ")


def test_without_peft_they_say_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for script, arguments in (("merge_drift", []), ("training_memory", ["--step-of", "peft LoRA"])):
        status, _, errors = run(script, "--model", "tiny", *arguments)
        assert status == 2
        assert len(errors) == 1
        assert errors[0].startswith("error: peft cannot be imported")
