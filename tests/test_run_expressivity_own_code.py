"""run_expressivity.py: what a file may name, with and without --trust_modules, and networks of one's own."""

import json

import pytest

from run_expressivity import main


@pytest.fixture
def run(run_experiment):
    return run_experiment


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
def told(output, target) -> None: print(output, target)
"""


@pytest.mark.parametrize(
    ("criterion", "law"),
    [
        ("own:Loss", "own:law"),
        ({"name": "own:pinball", "level": 0.3}, "own:Cubed"),
        ({"name": "huber", "delta": 0.5}, {"name": "uniform", "low": -1.0, "high": 1.0}),
        ("cross_entropy", {"name": "torch.distributions:Normal", "loc": [0] * 5, "scale": [1, 2, 1, 1, 1]}),
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
        ("criterion", "own:told", "it must be a class of torch modules, or a function (output, target)"),
        ("law", "random:SystemRandom", "it must be an object with a method sample(shape), or its class"),
        ("law", {"name": "torch.distributions:Normal", "loc": [[0], [1, 2]]}, "which cannot be made: ValueError"),
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
