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
def run(tmp_path, capsys):
    """run("n_diagonal", seed=1) -> (status, lines of output, lines of errors, the directory)."""

    def call(config, *flags, **overrides):
        path = config if isinstance(config, Path) else ROOT / "configs" / "expressivity" / f"{config}.json"
        arguments = [part for name, value in overrides.items() for part in (f"--{name}", json.dumps(value))]
        status = main([str(path), "--output_dir", str(tmp_path / "out"), *arguments, *flags])
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines(), tmp_path / "out"

    return call


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


@pytest.mark.filterwarnings("always:space 'B', size 0")
def test_ones_own_network_and_routine(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self, width): super().__init__(width, width)\n"
        "def nothing(network, x, y): return network\n"
    )
    space = {"architecture": "mine:Net", "parameters": {"width": 3}}
    config = {"input_size": 3, "A": space, "B": {**space, "train": "mine:nothing"}, "max_iterations": 2}
    (tmp_path / "own.json").write_text(json.dumps(config))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["own.json", "--trust_modules"]) == 0
    warned = "warning: space 'B', size 0: networks are fitted one at a time: the space sets train"
    assert warned in capsys.readouterr().err
    assert (tmp_path / "outputs" / "expressivity" / "own" / "min.png").exists()


NOT_TRUSTED = "a file may name classes of expressivity.networks and t3nsor only: to import and run other code, add --tr"


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("architecture", "subprocess:run"),
        ("train", "os:system"),
        ("optimizer", "builtins:eval"),
        ("optimizer", {"name": "builtins:exec"}),
        ("architecture", "t3nsor:torch.hub.load"),
        ("architecture", "t3nsor.layers:TTLinear"),
        ("architecture", "mine:Net"),
        ("criterion", "mine:Loss"),
        ("law", {"name": "mine:Law"}),
    ],
)
def test_a_file_runs_no_code_of_others(run, tmp_path, monkeypatch, key, name):
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w').close()\n")
    monkeypatch.syspath_prepend(tmp_path)
    where = key if key in ("criterion", "law") else f"A.{key}"
    status, _, errors, out = run("n_diagonal", **{where: name})
    assert (status, len(errors)) == (2, 1)
    assert NOT_TRUSTED in errors[0]
    assert not (tmp_path / "executed").exists()
    assert not out.exists()


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("architecture", "subprocess:run", "the function run; it must be a class of torch modules, or a function that"),
        ("architecture", "builtins:dict", "the type dict; it must be a class of torch modules"),
        ("architecture", "torch.optim:SGD", "the type SGD; it must be a class of torch modules"),
        ("train", "subprocess:run", "it must be a function (network, inputs, outputs)"),
        ("train", "torch.nn:Linear", "it must be a function (network, inputs, outputs)"),
        ("train", "torch.nn.utils:parameters_to_vector", "it must be a function (network, inputs, outputs)"),
        ("optimizer", "os:system", "it must be a class of torch optimizers, or a function (parameters, lr)"),
        ("optimizer", "torch.nn:Linear", "it must be a class of torch optimizers"),
    ],
)
def test_also_with_trust_only_what_the_key_needs_is_called(run, key, name, message):
    status, _, errors, out = run("n_diagonal", "--trust_modules", **{f"A.{key}": name})
    assert (status, len(errors)) == (2, 1)
    assert f"A.{key} is {name!r}, the " in errors[0]
    assert message in errors[0]
    assert not out.exists()


def test_a_class_of_this_project_needs_no_trust(run):
    keys = {"base": None, "shared": {"epoch": 1}, "max_iterations": 2, "sub_iterations": 1, "evaluation_rows": 16}
    layer = {"architecture": "t3nsor:TTLinear", "parameters": {"in_features": 5, "out_features": 5, "rank": 1, "d": 2}}
    status, _, errors, _ = run("n_diagonal", **keys, A=layer, B=layer)
    assert (status, errors) == (0, [])


def test_a_file_cannot_trust_itself(tmp_path, capsys):
    space = {"architecture": "subprocess:run"}
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"input_size": 3, "A": space, "B": space, "trust_modules": True}))
    assert main([str(path)]) == 2
    assert "sets trust_modules, which only the command line may" in capsys.readouterr().err


OWN = """
import torch
from torch.distributions import Normal
def pinball(output, target, level=0.5):
    return torch.maximum(level * (target - output), (level - 1) * (target - output)).mean()
class Loss(torch.nn.Module):
    def forward(self, output, target): return (output - target).abs().pow(1.5).mean()
law = Normal(1.0, 2.0)
class Cubed:
    def sample(self, shape): return torch.randn(shape).pow(3)
def no_tensor(shape): return 3
"""


@pytest.mark.parametrize(
    ("criterion", "law"),
    [
        ("own:Loss", "own:law"),
        ({"name": "own:pinball", "level": 0.3}, "own:Cubed"),
        ({"name": "huber", "delta": 0.5}, {"name": "uniform", "low": -1.0, "high": 1.0}),
        ("cross_entropy", {"name": "torch.distributions:Normal", "loc": [0.0] * 5, "scale": [1.0] * 5}),
    ],
)
def test_a_criterion_and_a_law_of_ones_own(run, tmp_path, monkeypatch, criterion, law):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    keys = {
        "max_iterations": 2,
        "sub_iterations": 1,
        "shared.epoch": 1,
        "shared.lr": 0.01,
        "shared.lr_candidates": [0.01],
    }
    status, _, errors, out = run("n_diagonal", "--trust_modules", criterion=criterion, law=law, **keys)
    assert status == 0, errors
    sizes = json.loads((out / "comparison.json").read_text())["sizes"]
    assert all(error > 0 for size in sizes for row in size["errors"]["fresh"]["A"] for error in row)


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("criterion", "subprocess:run", "it must be a class of torch modules, or a function (output, target)"),
        ("criterion", "torch.nn:MSELos", "cannot be imported: AttributeError"),
        ("criterion", "torch.optim:SGD", "it must be a class of torch modules"),
        ("law", "own:no_tensor", "it must be an object with a method sample(shape), or its class"),
        ("law", "torch.distributions:Normal", "which cannot be made: TypeError"),
    ],
)
def test_what_is_no_criterion_or_law_is_named(run, tmp_path, monkeypatch, key, name, message):
    (tmp_path / "own.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    status, _, errors, out = run("n_diagonal", "--trust_modules", **{key: name})
    assert (status, len(errors)) == (2, 1)
    assert f"{key} is {name!r}" in errors[0]
    assert message in errors[0]
    assert not out.exists()


ODD_NETWORKS = """
import torch
from torch import nn
class Lazy(nn.Sequential):
    def __init__(self): super().__init__(nn.LazyLinear(3))
class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    def forward(self, x): return (x * self.weight).real
class Empty(nn.Module):
    def forward(self, x): return x
def spoiled(network, x, y):
    for parameter in network.parameters():
        parameter.data.fill_(float("nan"))
    return network
"""


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("Lazy", {}, "0.weight has no shape before the first input"),
        ("Complex", {}, "weight is complex; networks must be real"),
        ("Empty", {}, "the network has no trainable parameters"),
        ("Empty", {"measure": 3}, "the network has no trainable parameters"),
    ],
)
def test_networks_that_cannot_be_fitted_are_one_line(tmp_path, monkeypatch, capsys, name, keys, message):
    (tmp_path / "odd_networks.py").write_text(ODD_NETWORKS)
    space = {"architecture": f"odd_networks:{name}", **keys}
    (tmp_path / "x.json").write_text(json.dumps({"input_size": 3, "A": space, "B": space, "max_iterations": 2}))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["x.json", "--trust_modules"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.filterwarnings("ignore:space 'A', size 0")
def test_a_routine_that_gives_nan_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "odd_networks.py").write_text(ODD_NETWORKS)
    linear = {"architecture": "deep_network", "parameters": {"width": 3, "depth": 1}, "batch_size": 16}
    config = {"input_size": 3, "A": {**linear, "train": "odd_networks:spoiled"}, "B": linear, "max_iterations": 2}
    (tmp_path / "x.json").write_text(json.dumps(config))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["x.json", "--trust_modules"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert errors == [
        "error: space 'A', size 0: all 5 fits diverged; train returned networks whose outputs are not finite"
    ]
