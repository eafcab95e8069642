"""The benchmarks of merging and memory run, and their results that do not depend on time."""

import json
import sys

import pytest

SCRIPTS = ("merge_drift", "merged_inference", "training_memory", "training_step")


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


def test_steps_of_peft_methods_are_timed_and_weighed(run):
    sizes = ["--rounds", 2, "--rows", 2, "--length", 16, "--hidden", 64, "--intermediate", 96, "--rank", 2]
    status, lines, errors = run("training_step", *sizes, "--methods", "tt_lora skewed")
    assert status == 0, errors
    rows = [line.split() for line in lines[-4:]]
    assert [row[:2] for row in rows] == [[d, m] for d in ("float32", "bfloat16") for m in ("lora", "tt_lora")]
    for lora, ours in (rows[:2], rows[2:]):
        assert lora[2] == ours[3]  # a skewed train has the parameters of LoRA
        assert float(ours[-3]) <= 1  # saved activations


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
    for wrong in (["--rank", 0], ["--rnk", 2], ["--model", "t6"]):
        status, _, errors = run(script, *wrong)
        assert status == 2
        assert len(errors) == 1
        assert errors[0].startswith("error: ")


def test_without_peft_they_say_so(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    for script, arguments in (("merge_drift", []), ("training_memory", ["--step-of", "peft LoRA"])):
        status, _, errors = run(script, "--model", "tiny", *arguments)
        assert status == 2
        assert len(errors) == 1
        assert errors[0].startswith("error: peft cannot be imported")
