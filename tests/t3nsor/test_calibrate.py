"""Rates and choices measured on this machine, and the file that keeps them."""

import json
import subprocess
import sys
import warnings

import pytest
import torch

from t3nsor import TTLinear, explain, machine, random_matrix, tt_matmul
from t3nsor.calibrate import fit, held_out_regret, main, parse, regret
from t3nsor.contraction import engine
from t3nsor.contraction.cost_model import choose_plan, counts, predicted
from t3nsor.contraction.engine import contraction_for
from t3nsor.contraction.plans import ContractionSpec, candidates
from t3nsor.machine import ASSUMED, Rates

SMALL = ["--layers", "16x32", "--ranks", "2", "--rows", "4", "32", "--seconds", "20"]
SMALL += ["--device", "cpu", "--threads", "1"]


def forget():
    machine._machine.cache_clear()
    engine._chosen_contraction.cache_clear()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A machine of which nothing is known, with an empty cache."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget()
    yield tmp_path / "t3nsor"
    forget()
    torch.set_num_threads(threads)


def known():
    """What a new process would know."""
    forget()
    return machine.machine("cpu")


def test_calibration_is_kept_for_this_machine_and_decides(cache, capsys):
    assert main(SMALL) == 0
    shown = capsys.readouterr().out
    assert "fitted rates" in shown
    assert "p90" in shown
    (path,) = cache.iterdir()
    found = known()
    assert found.path == path
    kept = "the rates stay as they are" in shown
    assert (found.rates("float32") == ASSUMED["cpu", 4]) is kept is (4 not in found.fitted)
    assert found.rates("float64") == ASSUMED["cpu", 8]
    for code in found.choices.values():
        assert code.split()[0] in ("chain", "full", "paired", "hybrid")
    spec = ContractionSpec((2, 8), (8, 4), (1, 2, 1), False, 32)
    assert spec.key(False) in found.choices
    assert choose_plan(spec).code == found.choices[spec.key(False)]
    for plan in candidates(spec, "auto", False):  # whatever is said to be the fastest
        found.choices[spec.key(False)] = plan.code
        assert choose_plan(spec) == plan
        assert choose_plan(spec, "full").kind == "full"
    main(SMALL)
    assert len(list(cache.iterdir())) == 1


def test_the_rates_that_made_the_times_are_found_again():
    rates = Rates(3e-11, 2e-10, 0.0, 1e-5, 3e-7)
    timings = []
    for rows in (8, 64, 512):
        for shape, rank in (((24, 32), (48, 64)), 8), (((96, 8), (8, 96)), 2):
            spec = ContractionSpec(*shape, (1, rank, 1), False, rows, with_dense_weight=rows == 64)
            for backward in (False, True):
                plans = candidates(spec, "auto", backward)
                done = {plan: counts(spec, plan, backward, plan) for plan in plans}
                seconds = {plan: predicted(numbers, rates) for plan, numbers in done.items()}
                timings.append((spec, backward, seconds, done))
    assert list(fit(timings)) == pytest.approx(list(rates), rel=1e-3, abs=1e-15)
    others = rates._replace(touch=0.0, call=1e-3)
    assert sum(held_out_regret(timings)) == sum(regret(timings, rates)) < sum(regret(timings, others))


def test_a_measured_problem_is_remembered(cache, monkeypatch):
    tt = random_matrix(((4, 4), (4, 4)), 2, trainable=True)
    x = torch.randn(100, 16, requires_grad=True)
    state = torch.get_rng_state()
    y = tt_matmul(x, tt, "measured")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.allclose(y, x @ tt.full(), atol=1e-5)
    choices = known().choices
    assert len(choices) == 2
    monkeypatch.setattr("t3nsor.contraction.measuring.time_plans", None)  # so that it cannot be measured again
    contraction = contraction_for(x, tt.cores, False, False)
    assert [contraction.forward.plan.code, contraction.training(True, True).backward.plan.code] == list(
        choices.values()
    )
    tt_matmul(x, tt, "measured").sum().backward()


def test_explain_says_where_a_choice_comes_from(capsys):
    layer = TTLinear(16, 16, rank=2, d=2, strategy="measured")
    explain(layer, 32)
    assert "assumed for a generic machine" in capsys.readouterr().out
    layer(torch.randn(32, 16))
    machine.machine("cpu").fitted[4] = ASSUMED["cpu", 4]
    explain(layer, 32)
    shown = capsys.readouterr().out
    assert "rates fitted on this machine" in shown
    assert shown.count("the fastest when measured") == 2
    assert [line for line in shown.splitlines() if "measured" in line and line.startswith("->")]
    explain(TTLinear(768, 768, rank=2, auto_shape_mode="skewed", strategy="left_to_right"), 512)
    assert "x and the cores, and 0.17 of x between them (save: fast)" in capsys.readouterr().out
    explain(TTLinear(768, 768, rank=2, auto_shape_mode="skewed", strategy="left_to_right", save="least"), 512)
    assert "x and the cores (save: least)" in capsys.readouterr().out
    explain(layer, 32)
    assert "kept for the backward pass: what autograd keeps" in capsys.readouterr().out


def written(cache, **changes):
    """The file of this machine, with changes."""
    path = known().path
    good = {"machine": known().name, "rates": {"4": [1e-11] * 5}, "choices": {}}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(good | changes))
    return path


def replaced(old, new):
    return lambda path: path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: path.write_bytes(b"\x00\xff damaged"), "is ignored"),
        (lambda path: path.write_text(path.read_text()[:-9]), "is ignored"),
        (lambda path: path.write_text("[]"), "is ignored"),
        (lambda path: path.write_text("{}"), "is ignored ('machine')"),
        (
            replaced("threads: 1", "threads: 64"),
            "it is of another machine",
        ),
        (replaced("1e-11", "-1"), "a rate is out of range"),
        (replaced("1e-11", "NaN"), "a rate is out of range"),
        (replaced("1e-11, ", ""), "is ignored"),
    ],
)
def test_a_damaged_file_or_that_of_another_machine_is_ignored_with_one_line(cache, change, words):
    path = written(cache)
    assert known().fitted
    change(path)
    forget()
    with pytest.warns(UserWarning, match="python -m t3nsor.calibrate writes it anew") as caught:
        found = machine.machine("cpu")
    assert len(caught) == 1
    assert words in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    assert found.rates("float32") == ASSUMED["cpu", 4]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        main(SMALL)
        assert known().choices


def test_threads_share_the_products_of_assumed_rates(cache):
    one, two = (machine.Machine("cpu", "a machine", threads).rates("float32") for threads in (1, 2))
    assert one == ASSUMED["cpu", 4]
    assert two == one._replace(multiply=one.multiply / 2)


def test_an_unknown_plan_in_the_file_is_not_chosen(cache):
    spec = ContractionSpec((2, 8), (8, 4), (1, 2, 1), False, 32)
    written(cache, choices={spec.key(False): "paired 1-1 0", spec.key(True): "chain 7-7 0"})
    forget()
    assert choose_plan(spec) in candidates(spec)
    assert choose_plan(spec, backward=True) in candidates(spec, backward=True)


def test_a_cache_that_cannot_be_written_is_said_once_and_results_stay(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    forget()
    with pytest.warns(UserWarning, match="cannot be written: .*; what was measured is lost"):
        assert main(SMALL) == 1
    assert "the fastest plans" not in capsys.readouterr().out
    assert machine.machine("cpu").choices


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--threads", "100000"], "--threads is 100000; it may be at most"),
        (["--device", "cuda"], "--device is cuda, but torch finds no CUDA device"),
        (["--layers", "768"], "'768' must be INxOUT, as in 768x3072"),
        (["--seconds", "0"], "'0' must be a whole number of at least 1"),
    ],
)
def test_wrong_arguments_end_in_one_line(arguments, words, capsys):
    if arguments == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


def test_shapes_do_not_depend_on_the_calibration(cache):
    before = TTLinear(768, 3072, rank=2, d="fastest").weight.raw_shape
    found = machine.machine("cpu")
    found.fitted[4] = Rates(0.0, 0.0, 0.0, 1.0, 1.0)  # few calls are all that counts
    assert TTLinear(768, 3072, rank=2, d="fastest").weight.raw_shape == before


def test_the_command(cache):
    run = subprocess.run([sys.executable, "-m", "t3nsor.calibrate", *SMALL], capture_output=True, text=True, check=True)
    assert str(cache) in run.stdout
    assert not run.stderr
