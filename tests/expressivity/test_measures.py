"""Measures without an optimiser: each on networks whose value is known, and the averages over two families."""

import csv
import json
import math
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from expressivity import ArchitecturalSpace, ExpressivityError, confidence_interval
from expressivity.effective_rank import tangent_kernel_rank
from expressivity.measured_families import measure_families
from expressivity.measures import MEASURES, check_measures, make_probe, modes_of, proven_separation_rank
from expressivity.networks import AdaptedNetwork, DeepNetwork, TensorTrainScore, Transformer
from run_expressivity import main
from t3nsor import TTLinear

ROOT = Path(__file__).parent.parent.parent
LAW = Normal(0.0, 1.0)
TRAIN = {"width": 16, "depth": 1, "layer": "tt", "d": 2}


def family(size, architecture, name=None, parameters=None):
    return ArchitecturalSpace(size, name, architecture, parameters, automatic_measurement_mode="parameters")


def measured(name: str, network: nn.Module, size, modes=None) -> float:
    space = family(size, type(network))
    modes = modes or modes_of([network], space.input_size)
    return MEASURES[name](space, 0, network, make_probe(space, 0, LAW, modes, (0,)))


def linear(matrix: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(*matrix.shape, bias=False)
    layer.weight = nn.Parameter(matrix.T.clone())
    return layer


def test_the_trajectory_of_a_scaled_input_is_as_much_longer():
    assert measured("trajectory_length", linear(3 * torch.eye(6)), 6) == pytest.approx(3, rel=1e-5)
    three = nn.Sequential(nn.Flatten(), linear(torch.eye(6) / 2))
    assert measured("trajectory_length", three, (2, 3)) == pytest.approx(0.5, rel=1e-5)
    assert measured("trajectory_length", linear(torch.zeros(6, 2)), 6) == 0


@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.Tanh(), nn.Sigmoid()])
def test_k_lines_through_its_centre_cut_a_circle_into_2_k_patterns(activation):
    torch.manual_seed(0)
    hidden = linear(torch.randn(4, 5))
    assert measured("activation_patterns", nn.Sequential(hidden, activation), 4) == 10


def test_patterns_are_those_of_all_activations_together():
    """Two layers that each see the sign of one coordinate: four quadrants of a circle in the plane."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.first(x[:, :1]) + self.second(x[:, 1:])

    assert measured("activation_patterns", Both(), 2) == 4


def test_patterns_of_activations_between_cores_count():
    torch.manual_seed(0)
    options = {"rank": 2, "shape": ((2, 2, 2), (2, 2, 2)), "bias": False}
    layer = TTLinear(8, 8, **options, cores_nonlinearity=nn.ReLU())
    states = []
    hook = layer.cores_nonlinearity.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))
    space = family(8, TTLinear)
    probe = make_probe(space, 0, LAW, [2, 2, 2], (0,))
    layer(probe.curve)
    hook.remove()
    signs = [(state > 0).reshape(len(probe.curve), -1).tolist() for state in states]
    wanted = {str(rows) for rows in zip(*signs, strict=True)}
    assert len(states) == 2
    assert MEASURES["activation_patterns"](space, 0, layer, probe) == len(wanted) > 4


def test_the_tangent_kernel_is_that_of_the_rows():
    torch.manual_seed(0)
    network, space = DeepNetwork(5, 2), family(5, DeepNetwork)
    probe = make_probe(space, 0, LAW, [5], (0,))
    assert probe.rows.shape == (32, 5)
    assert MEASURES["tangent_kernel_rank"](space, 0, network, probe) == tangent_kernel_rank(network, probe.rows)
    wide = nn.Linear(5, 600)
    assert MEASURES["tangent_kernel_rank"](space, 0, wide, probe) == tangent_kernel_rank(wide, probe.rows[:1])


@pytest.mark.parametrize(("rank", "plain", "activated"), [(1, 2, 3), (2, 3, 5), (3, 4, 7)])
def test_the_separation_rank_of_a_layer_with_a_bias(rank, plain, activated):
    """r terms without an activation between two cores, 2 r with a ReLU, and one for the bias."""
    torch.manual_seed(0)
    network = DeepNetwork(rank=rank, **TRAIN)
    assert measured("separation_rank", network, 16) == plain
    with_relu = DeepNetwork(rank=rank, activation_between_cores="relu", **TRAIN)
    assert measured("separation_rank", with_relu, 16) == activated
    probe = make_probe(family(16, DeepNetwork), 0, LAW, [4, 4], (0,))
    assert proven_separation_rank(network, probe) == plain
    assert proven_separation_rank(with_relu, probe) is None
    assert proven_separation_rank(DeepNetwork(rank=rank, **{**TRAIN, "depth": 2}), probe) is None
    assert proven_separation_rank(DeepNetwork(16, 1), probe) is None
    assert probe.largest_rank == 8


def test_the_separation_rank_of_sequences():
    torch.manual_seed(0)
    network = TensorTrainScore(4, 3, 2)
    probe = make_probe(family((4, 3), TensorTrainScore), 0, LAW, [], (0,))
    assert [tuple(each.shape) for each in probe.templates] == [(6, 3)] * 4
    assert measured("separation_rank", network, (4, 3)) == proven_separation_rank(network, probe) == 2
    assert proven_separation_rank(TensorTrainScore(4, 3, 2, activation_between_cores="relu"), probe) is None
    assert proven_separation_rank(TensorTrainScore(4, 3, 2, product="rectifier"), probe) is None
    assert measured("separation_rank", Transformer(3, 4), (4, 3)) > 2


def test_positions_are_the_modes_of_the_first_train():
    torch.manual_seed(0)
    three = nn.Sequential(nn.ReLU(), TTLinear(24, 24, rank=2, shape=((2, 3, 4), (2, 3, 4))))
    assert modes_of([nn.Linear(24, 24), three], (24,)) == [2, 3, 4]
    assert modes_of([nn.Linear(24, 24)], (24,)) == [4, 6]
    assert modes_of([three], (9,)) == [3, 3]
    assert modes_of([three], (7,)) == [7]


@pytest.mark.parametrize(
    ("name", "network", "size", "message"),
    [
        ("separation_rank", nn.Linear(7, 7), 7, "input_size 7 is not a product of two numbers above 1"),
        ("separation_rank", nn.Linear(6400, 1), 6400, r"the grid of 80 \* 80 inputs has more than 4096"),
        ("separation_rank", nn.Linear(2, 2), (3, 2, 2), r"input_size is \[3, 2, 2\]; it must be one number, or"),
        ("separation_rank", nn.Linear(2, 2), (13, 2), r"2\^13 inputs are more than 4096"),
        ("trajectory_length", nn.Linear(1, 1), 1, "input_size is 1; a circle needs 2 dimensions"),
        ("activation_patterns", nn.Linear(1, 1), 1, "input_size is 1; a circle needs 2 dimensions"),
        ("activation_patterns", nn.Linear(4, 4), 4, "the network calls no activation of torch.nn"),
        ("tangent_kernel_rank", nn.ReLU(), 4, "the network has no trainable parameters"),
    ],
)
def test_a_measure_that_does_not_apply_says_why(name, network, size, message):
    with pytest.raises(ExpressivityError, match=message):
        measured(name, network, size)


@pytest.fixture
def trains():
    """Trains of rank 1 and 2 with a ReLU between the cores, and without."""
    with_relu = [{**TRAIN, "rank": rank, "activation_between_cores": "relu"} for rank in (1, 2)]
    return {
        "A": family(16, DeepNetwork, "ReLU", with_relu),
        "B": family(16, DeepNetwork, "plain", [{**TRAIN, "rank": rank} for rank in (1, 2)]),
    }


def test_rows_hold_means_intervals_bounds_and_the_size_of_both(trains):
    rows = measure_families(trains, LAW, ["separation_rank", "tangent_kernel_rank"], 6, 0, 0.9)
    assert [(row["size"], row["statistic"]) for row in rows] == [
        (index, name) for index in (0, 1) for name in ("separation_rank", "tangent_kernel_rank")
    ]
    for row in rows:
        assert row["measure_A"] == row["measure_B"] == trains["A"].measured(row["size"])
        assert row["difference"] == pytest.approx(row["value_A"] - row["value_B"])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    first, second = rows[0], rows[2]
    assert (first["value_A"], first["value_B"], first["bound_A"], first["bound_B"], first["largest"]) == (
        3,
        2,
        None,
        2,
        8,
    )
    assert (second["value_A"], second["value_B"], second["bound_B"]) == (5, 3, 3)
    assert rows[1]["bound_B"] is rows[1]["largest"] is None


def test_values_are_averaged_over_members_that_start_from_the_same_seed(trains, monkeypatch):
    """Both families draw the same weights here, and each number the same whatever is measured with it."""
    seen = {"ReLU": [], "plain": []}

    def keep(space, index, network, probe):
        weight = network.layers[0].layer.weight.full().detach()
        seen[space.name].append((weight, probe.curve))
        return float(weight.sum())

    monkeypatch.setitem(MEASURES, "kept", keep)
    three = measure_families(trains, LAW, ["kept"], 3, 0, 0.9)
    five = measure_families(trains, LAW, ["kept"], 5, 0, 0.9)
    for a, b in zip(seen["ReLU"], seen["plain"], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert len({float(weight.sum()) for weight, _ in seen["plain"]}) == 2 * 5  # 2 sizes; the first three are the same
    values = torch.stack([weight.sum() for weight, _ in seen["plain"][6:11]])
    assert five[0]["value_B"] == pytest.approx(values.mean().item(), rel=1e-5)
    wanted = confidence_interval(values, 0.9)
    assert (five[0]["value_B_low"], five[0]["value_B_high"]) == pytest.approx((wanted.low, wanted.high), rel=1e-5)
    assert five[0]["difference"] == five[0]["difference_low"] == five[0]["difference_high"] == 0
    other = measure_families(trains, LAW, ["kept"], 3, 1, 0.9)
    assert other[0]["value_A"] != three[0]["value_A"]
    assert three == measure_families(trains, LAW, ["kept"], 3, 0, 0.9)


def test_where_it_does_not_apply_the_row_is_empty_and_the_reason_said_once(trains):
    with pytest.warns(UserWarning, match="activation_patterns does not apply to space 'plain': the network ca") as said:
        rows = measure_families(trains, LAW, ["activation_patterns"], 2, 0, 0.9)
    assert len(said) == 1  # for two sizes of two members
    assert rows[0]["value_A"] > 2
    assert rows[0]["value_B"] is rows[0]["difference"] is rows[0]["difference_high"] is None


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"measures is \[\]; it must be null or name some of separation_rank, trajectory_length"),
        (["separation_rnak"], "measures contains 'separation_rnak'; did you mean separation_rank\\? allowed: sep"),
        (["x"], "measures contains 'x'; allowed: separation_rank, trajectory_length, activation_patterns, tangent_ker"),
        (["trajectory_length"] * 2, "measures contains 'trajectory_length' twice"),
    ],
)
def test_names_of_measures_are_checked(names, message):
    check_measures(None)
    check_measures(list(MEASURES))
    with pytest.raises(ExpressivityError, match=message):
        check_measures(names)


@pytest.mark.slow
def test_a_configuration_file_asks_for_measures(tmp_path, capsys):
    configuration, out = str(ROOT / "configs" / "expressivity" / "tt_cores_nonlinearity.json"), tmp_path / "out"
    quick = {
        "max_iterations": 2,
        "sub_iterations": 1,
        "shared.epoch": 1,
        "evaluation_rows": 32,
        "output_dir": str(out),
        "measures": None,
    }

    def call(**keys):
        flags = [part for name, value in (quick | keys).items() for part in (f"--{name}", json.dumps(value))]
        return main([configuration, *flags]), capsys.readouterr()

    status, printed = call()
    assert status == 0
    assert "measures" not in printed.out
    results = (out / "results.csv").read_bytes()
    assert not (out / "measures.csv").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        status, printed = call(measures=list(MEASURES), measure_networks=2)  # added to a finished run
    assert status == 0, printed.err
    assert (out / "results.csv").read_bytes() == results
    assert "measures without training, mean of 2 random networks of each family" in printed.out
    assert printed.out.splitlines()[-1] == str(out / "measures.csv")
    with open(out / "measures.csv") as file:
        rows = list(csv.DictReader(file))
    assert [(row["size"], row["statistic"]) for row in rows] == [(str(k), name) for k in range(3) for name in MEASURES]
    assert all(math.isfinite(float(row["value_A"])) and row["measure_A"] == row["measure_B"] for row in rows)
    call()
    assert not (out / "measures.csv").exists()  # it would not belong to this configuration
    status, printed = call(measures=["separation_rnak"])
    assert (status, printed.err.splitlines()[-1].count("did you mean separation_rank?")) == (2, 1)
    status, printed = call(measures=["separation_rank"], measure_networks=1)
    assert status == 2
    assert "measure_networks is 1; it must be a whole number, at least 2" in printed.err


def test_updates_of_a_frozen_base_are_measured_as_they_are_drawn():
    """Not at their start, where they are zero and all families are the frozen base."""
    common = {"width": 16, "depth": 1, "update": "tt", "rank": 4, "d": 2}
    recipe = {"frozen_base": True, "automatic_measurement_mode": "parameters"}
    plain = ArchitecturalSpace(16, "plain", AdaptedNetwork, common, **recipe)
    relu = ArchitecturalSpace(16, "relu", AdaptedNetwork, {**common, "activation_between_cores": "relu"}, **recipe)
    (row,) = measure_families({"A": plain, "B": relu}, Normal(0.0, 1.0), ["separation_rank"], 3, 0, 0.95)
    assert row["value_A"] < row["value_B"]
