"""run_expressivity.py: every shipped configuration, resuming, and one-line errors."""

import csv
import json
import math
from pathlib import Path

import pytest

import run_expressivity
from common.ownership import Ownership
from expressivity import ComparisonResult
from expressivity.experiments import EXPERIMENTS
from run_expressivity import load, main

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs" / "expressivity").glob("*.json"))
SMALL = {
    "comparison": {
        "max_iterations": 2,
        "sub_iterations": 2,
        "shared.epoch": 1,
        "shared.mini_batch_size": 256,
        "evaluation_rows": 32,
        "shared.lr_candidates": [0.01, 0.1],
    },
    "trajectory_depth": {"width": 16, "depth": 3, "last": 3, "points": 200, "networks": 2},
}
NO_SEARCH = {"shared.lr": 0.01, "shared.lr_candidates": [0.01]}
WANTED = {
    "adaptation", "n_diagonal", "split_transformers", "tt_cores_nonlinearity", "tt_vs_lora", "tt_vs_tr",
    "trajectory_depth",
}  # fmt: skip


@pytest.fixture
def run(run_experiment):
    return run_experiment


def small(path: Path) -> dict:
    return SMALL[json.loads(path.read_text()).get("experiment", "comparison")]


def test_a_second_run_in_the_directory_is_refused(run, tmp_path):
    (tmp_path / "out").mkdir()
    with Ownership(tmp_path / "out"):
        status, _, errors, out = run("n_diagonal", **SMALL["comparison"])
    assert status == 2
    assert "to which another run is writing" in errors[-1]
    assert not list(out.iterdir())


def test_the_shipped_configurations():
    assert {path.stem for path in CONFIGS} == WANTED


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_runs(path, run):
    status, lines, errors, out = run(path, **small(path))
    assert status == 0, errors
    assert not errors  # nothing is fitted one at a time
    settings, experiment = load(str(path), [])
    assert settings.experiment_name == path.stem
    assert {file.name for file in out.iterdir()} == {*experiment.files, "resolved_config.json"}
    assert lines[-len(experiment.files) :] == [str(out / name) for name in experiment.files]
    with open(out / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows
    for row in rows:
        for name, value in row.items():
            if name not in ("statistic", "winner", "activation"):
                assert not math.isnan(float(value or 0)), name  # empty: no closed form
    for name in experiment.files[2:]:
        assert (out / name).stat().st_size > (5000 if name.endswith(".png") else 100)
    again, _ = load(str(out / "resolved_config.json"), [])
    assert again.directory == out


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_families_have_equal_measures_where_they_claim_to(path):
    """Measures of A and B differ by at most a tenth, except where both contain the base."""
    _, experiment = load(str(path), [])
    if not isinstance(experiment, EXPERIMENTS["comparison"]):
        return
    comparator = experiment.comparator()
    base = comparator.measures.get("base", [math.inf] * comparator.count)
    for a, b, whole in zip(comparator.measures["A"], comparator.measures["B"], base, strict=True):
        assert abs(a - b) <= 0.1 * b or min(a, b) >= whole


def test_it_goes_on_and_a_finished_one_is_only_shown(run, monkeypatch):
    keys = {"sub_iterations": 1, "shared.epoch": 1, "shared.mini_batch_size": 256, "evaluation_rows": 16}
    keys |= {"stack_size": 2, **NO_SEARCH}
    run("n_diagonal", **keys, max_iterations=2)
    *_, out = run("n_diagonal", **keys, max_iterations=4)
    result = ComparisonResult.from_json(out / "comparison.json")
    assert [size.targets for size in result.sizes] == [4, 4, 4]
    monkeypatch.setattr("expressivity.comparator.Contest.fit", lambda *_: pytest.fail("nothing is left to fit"))
    status, lines, _, _ = run("n_diagonal", **keys, max_iterations=4)
    assert status == 0
    assert any("low-rank" in line for line in lines)


def test_another_configuration_is_refused_and_on_request_replaces_it(run):
    keys = {"max_iterations": 2, "sub_iterations": 1, "shared.epoch": 1, "evaluation_rows": 16, **NO_SEARCH}
    *_, out = run("n_diagonal", **keys)
    before = (out / "comparison.json").read_bytes()
    status, _, errors, _ = run("n_diagonal", **keys, seed=1)
    assert (status, len(errors)) == (2, 1)
    assert errors[0].startswith(
        f"error: {out} holds a run that differs in seed; choose another output_dir or set overwrite"
    )
    assert (out / "comparison.json").read_bytes() == before
    status, *_ = run("n_diagonal", "--overwrite_output_dir", **keys, seed=1)
    assert status == 0
    assert (out / "comparison.json").read_bytes() != before
    before = (out / "comparison.json").read_bytes()
    status, _, errors, _ = run("trajectory_depth", "--overwrite_output_dir", **SMALL["trajectory_depth"])
    assert (status, len(errors)) == (2, 1)
    assert "holds the experiment 'n_diagonal', not 'trajectory_depth', and is never replaced" in errors[0]
    assert (out / "comparison.json").read_bytes() == before


def test_files_of_something_else_are_left_alone(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    for flags in ((), ("--overwrite_output_dir",)):
        status, _, errors, out = run("n_diagonal", *flags)
        assert (status, len(errors)) == (2, 1)
        assert "holds files that this program did not write" in errors[0]
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_an_interruption_ends_in_one_line(run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("expressivity.comparator.Contest.fit", interrupt)
    status, _, errors, out = run("n_diagonal", **NO_SEARCH)
    assert (status, len(errors)) == (130, 1)
    assert errors[0].startswith("interrupted")
    assert not out.exists()


def test_a_wrong_key_deletes_nothing(run):
    keys = {"max_iterations": 2, "sub_iterations": 1, "shared.epoch": 1, "evaluation_rows": 16, **NO_SEARCH}
    *_, out = run("n_diagonal", **keys)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    for wrong in ({"A.lr": -1}, {"confidence": 2}, {"evaluation_rows": 0}):
        status, *_ = run("n_diagonal", "--overwrite_output_dir", **{**keys, **wrong})
        assert status == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


WRONG = [
    ({"experiment": ["x"]}, "experiment is ['x']; allowed: comparison, trajectory_depth"),
    ({"A.name": ["x"]}, "name must be a string"),
    ({"shared.automatic_measurement_mode": ["parameters"]}, "automatic_measurement_mode is ['parameters']"),
    ({"A.parameters": [], "B.parameters": []}, "parameters is an empty list"),
    ({"A.parameters.rank": 3}, "--A.parameters.rank cannot be set: A.parameters is not a JSON object"),
    ({"shared.parameters.depth": 0}, "depth is 0; it must be at least 1"),
    ({"max_iteration": 3}, "unknown key max_iteration; did you mean max_iterations?"),
    ({"max_iterations": "many"}, 'max_iterations is "many"; it must be a whole number'),
    ({"max_iterations": 0}, "max_iterations is 0; it must be a whole number, at least 1"),
    ({"law": "cauchy"}, "law is 'cauchy'; it must be one of normal, uniform, laplace, or an importable object"),
    ({"law": {"name": "uniform", "lo": 2}}, "which cannot be made: TypeError"),
    ({"criterion": "hinge"}, "criterion is 'hinge'; it must be one of mse, l1, huber, cross_entropy, or an importable"),
    ({"criterion": {"name": "huber", "dleta": 1}}, "which cannot be made: TypeError"),
    ({"A.lr_candidates": []}, "lr_candidates is []; it must be a list of learning rates"),
    ({"A.frozen_base": 1}, "frozen_base is 1; it must be true or false"),
    ({"experiment": "duel"}, "experiment is 'duel'; allowed: comparison, trajectory_depth"),
    ({"A.lr": -1}, "space 'n-diagonal': lr is -1; it must be a number above 0"),
    ({"A.learning_rate": 1}, "space 'n-diagonal': unknown keyword learning_rate"),
    ({"A.input_size": 1}, "input_size is set in A or shared; set it at the top level"),
    ({"B.parameters": [{"layer": "low_rank", "rank": 1}]}, "all spaces must have the same number of sizes"),
    ({"B.parameters": 3}, "B.parameters must be an object or a list of objects"),
    ({"shared.parameters": []}, "shared.parameters must be an object"),
    ({"shared.parameters.width": 6}, "size 0: the network does not accept inputs of size (5,): RuntimeError"),
    ({"shared.parameters.layer": "fll"}, "size 0: DeepNetwork"),
    ({"base.parameters": {"layer": "dense"}}, "unknown layer 'dense'; allowed: full, low_rank"),
    ({"shared.parameters.activation": "rleu"}, "unknown activation 'rleu'"),
    ({"A.parameters": {"layer": "n_diagonal", "diagonals": 10}}, "diagonals is 10; for width 5 it must be from 1 to 9"),
    ({"A.architecture": "deep_netwrk"}, "A.architecture is 'deep_netwrk'; it must be one of deep_network, or an imp"),
    (
        {"A.architecture": "no.module:Net"},
        "A.architecture is 'no.module:Net', which cannot be imported: Module",
    ),
    (
        {"A.optimizer": "Adm"},
        "A.optimizer is 'Adm'; it must be one of Adam, or an importable object, written module:name",
    ),
    (
        {"A.optimizer": {"name": "SGD", "momentun": 1}},
        "'n-diagonal', size 0: fitting a network failed: TypeError",
    ),
    ({"A.train": "solve"}, "A.train is 'solve'; it must be an importable object, written module:name"),
    ({"base": None}, "without a base, A and B must have the same measure at each size (within tolerance 0)"),
    ({"seed": -1}, "seed is -1"),
    ({"confidence": 2}, "confidence is 2"),
]


@pytest.mark.filterwarnings("ignore:space 'n-diagonal', size 0")
@pytest.mark.parametrize(("overrides", "message"), WRONG, ids=[", ".join(overrides) for overrides, _ in WRONG])
def test_wrong_input_ends_in_one_line(run, overrides, message):
    keys = {"max_iterations": 2, "sub_iterations": 1, "shared.epoch": 1, **overrides}
    status, _, errors, out = run("n_diagonal", **keys)
    errors = [line for line in errors if not line.startswith("warning: ")]
    assert (status, len(errors)) == (2, 1)
    assert message in errors[0]
    assert not out.exists()


def test_wrong_input_of_trajectories(run):
    for overrides, message in (
        ({"activations": ["rleu"]}, "activations contains 'rleu'; allowed: gelu"),
        ({"width": 1}, "width is 1; it must be a whole number, at least 2"),
        ({"points": 1}, "points is 1"),
        ({"last": 9}, "first is 2, last is 9, depth is 8; first must be less than last, and last at most depth"),
        ({"weight_variances": [0]}, "weight_variances is 0; it must be a number above 0"),
        ({"activations": []}, "activations is []; it must have at least one item"),
    ):
        status, _, errors, _ = run("trajectory_depth", **overrides)
        assert (status, len(errors)) == (2, 1)
        assert message in errors[0]


def test_wrong_command_lines(capsys, tmp_path):
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "empty.json").write_text("{}")
    for arguments, message in (
        ([], "usage: python run_expressivity.py FILE.json"),
        (["no.json"], "no.json cannot be read: No such file"),
        ([str(tmp_path / "list.json")], "contains a list; a configuration is one JSON object"),
        ([str(tmp_path / "empty.json")], "empty.json does not set input_size, which this experiment requires"),
    ):
        assert main(arguments) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.err.count("\n") == 1
        assert not printed.out


def test_help_lists_every_key(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for cls in EXPERIMENTS.values():
        for f in run_expressivity.key_fields(cls):
            assert f"  {f.name}: " in printed
