"""Separation ranks against the proven values of plain trains, dense references and modules whose rank is known."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from expressivity import ExpressivityError
from expressivity.devices import available_memory
from expressivity.networks import TensorTrainScore
from expressivity.proven_ranks import ProvenRanks, plain_train_ranks
from expressivity.separation_rank import grid_tensor, rank_of_grid, separation_rank
from t3nsor import TTLinear

CASES = list(itertools.product((4, 6), (1, 2, 3, 4), (2, 3, 4)))  # positions, rank, features


def score(seed: int = 0, *sizes, **options) -> TensorTrainScore:
    torch.manual_seed(seed)
    return TensorTrainScore(*sizes, **options).double()


def dense(cores) -> np.ndarray:
    """The full tensor (n_1, .., n_N) of cores (r, n, r'), by contracting them pair by pair in numpy."""
    whole = np.ones((1, 1))
    for core in cores:
        core = core.detach().double().numpy()
        whole = np.einsum("xr,rns->xns", whole, core).reshape(-1, core.shape[2])
    return whole.reshape([core.shape[1] for core in cores])


def dense_rank(tensor: np.ndarray, left: list[int]) -> int:
    right = [k for k in range(tensor.ndim) if k not in left]
    rows = math.prod(tensor.shape[k] for k in left)
    return int(np.linalg.matrix_rank(tensor.transpose(*left, *right).reshape(rows, -1)))


@pytest.mark.parametrize(("positions", "rank", "features"), CASES)
def test_of_plain_trains_split_in_the_middle_it_is_the_proven_rank(positions, rank, features):
    network, wanted = score(1, positions, features, rank), min(rank, features ** (positions // 2))
    spanning = torch.randn(features, features, dtype=torch.float64)
    found = separation_rank(network, torch.eye(features), positions=positions)
    assert found.rank == wanted == dense_rank(dense(network.cores), list(range(positions // 2)))
    assert separation_rank(network, spanning, positions=positions).rank == wanted
    assert plain_train_ranks((features,) * positions, rank) == ProvenRanks(wanted, wanted)
    assert found.largest == features ** (positions // 2) == len(found.singular_values)


@pytest.mark.parametrize(("positions", "rank", "features"), CASES)
def test_of_plain_trains_split_into_odd_and_even_it_is_within_the_proven_ranks(positions, rank, features):
    network, at_least = score(1, positions, features, rank), min(rank, features) ** (positions // 2)
    proven = plain_train_ranks((features,) * positions, rank, "odd_even")
    found = separation_rank(network, torch.eye(features), "odd_even", positions=positions).rank
    assert found == dense_rank(dense(network.cores), list(range(0, positions, 2)))
    assert proven.almost_surely_at_least == at_least
    assert found == proven.at_most  # observed: random cores reach the minimum cut
    if rank == 1 or rank >= features:
        assert found == at_least  # proven
    else:
        assert found > at_least  # the paper's value is a lower bound


def test_the_grid_is_the_dense_tensor_applied_to_the_templates():
    network = score(0, 4, 3, 2)
    templates = [torch.randn(m, 3, dtype=torch.float64) for m in (2, 5, 3, 4)]
    grid = grid_tensor(network, templates)
    wanted = np.einsum("abcd,ia,jb,kc,ld->ijkl", dense(network.cores), *templates)
    assert grid.shape == (2, 5, 3, 4, 1)
    assert np.allclose(grid[..., 0].numpy(), wanted)


def test_the_minimum_cut_against_all_cuts():
    generator = np.random.default_rng(0)
    for _ in range(50):
        count = int(generator.integers(2, 7))
        modes, ranks = generator.integers(1, 7, count).tolist(), generator.integers(1, 7, count - 1).tolist()
        left = sorted(generator.choice(count, int(generator.integers(1, count)), replace=False).tolist())
        cuts = []
        for sides in itertools.product((True, False), repeat=count):
            moved = [n for k, n in enumerate(modes) if sides[k] != (k in left)]
            bonds = [r for k, r in enumerate(ranks) if sides[k] != sides[k + 1]]
            cuts.append(math.prod(moved) * math.prod(bonds))
        proven = plain_train_ranks(modes, ranks, left)
        assert proven.at_most == min(cuts)
        assert proven.almost_surely_at_least <= proven.at_most


@pytest.mark.parametrize(("positions", "features", "rank"), [(4, 3, 3), (4, 4, 2), (6, 3, 3), (6, 3, 2)])
def test_an_activation_between_the_cores_exceeds_the_bound_of_plain_trains(positions, features, rank):
    networks = [score(seed, positions, features, rank, activation_between_cores="relu") for seed in range(8)]
    ranks = [separation_rank(network, torch.eye(features), positions=positions).rank for network in networks]
    assert max(ranks) > plain_train_ranks((features,) * positions, rank).at_most


def test_an_activation_may_lower_the_rank_of_odd_against_even():
    """Theorem 1 is about plain trains only; Theorem 5.3 of the second paper: not almost all rectifier networks."""
    with_relu = score(0, 6, 2, 2, activation_between_cores="relu")
    assert separation_rank(with_relu, torch.eye(2), "odd_even", positions=6).rank < 8
    assert separation_rank(score(0, 6, 2, 2), torch.eye(2), "odd_even", positions=6).rank == 8


def test_the_rectifier_product_of_rank_one_reaches_the_full_rank():
    """max(a_i, b_j, 0) with a and b interleaved has full rank, a product a_i b_j has rank 1."""
    network = score(0, 2, 4, 1, product="rectifier")
    with torch.no_grad():
        for core, matrix, first in zip(network.cores, network.maps, ([1, 3, 5, 7], [2, 4, 6, 8]), strict=True):
            core.zero_()[0, 0, 0] = 1
            matrix[0] = torch.tensor(first)
    grid = grid_tensor(network, torch.eye(4), positions=2)[..., 0]
    assert grid.tolist() == [[max(a, b) for b in (2, 4, 6, 8)] for a in (1, 3, 5, 7)]
    assert separation_rank(network, torch.eye(4), positions=2).rank == 4
    assert separation_rank(score(0, 2, 4, 1), torch.eye(4), positions=2).rank == 1


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("left", "indices"), [(None, [0, 1]), ("odd_even", [0, 2]), ([3, 1], [1, 3]), ({0}, [0])])
def test_of_a_layer_of_t3nsor_each_output_is_a_score_function(left, indices, bias):
    torch.manual_seed(0)
    modes = (2, 3, 4, 2)
    layer = TTLinear(48, 16, rank=[2, 3, 2], shape=(modes, (2, 2, 2, 2)), bias=bias, dtype=torch.float64)
    if bias:
        nn.init.normal_(layer.bias)
    units = [torch.eye(n) for n in modes]
    found = separation_rank(layer, units, left, join="outer")
    columns = layer(torch.eye(48, dtype=torch.float64)).T.detach().numpy()
    assert np.allclose(grid_tensor(layer, units, join="outer").movedim(-1, 0).flatten(1).numpy(), columns)
    assert list(found.by_output) == [dense_rank(column.reshape(modes), indices) for column in columns]
    assert found.rank == max(found.by_output)
    assert found.rank <= plain_train_ranks(modes, [2, 3, 2], left).at_most + bias


def test_an_activation_between_two_cores_of_t3nsor_doubles_the_rank():
    """relu(a b) = relu(a) relu(b) + relu(-a) relu(-b): 2 r terms. One-hot templates have b = 0 or 1, and see one."""
    torch.manual_seed(0)
    options = {"rank": 2, "shape": ((8, 8), (4, 4)), "bias": False}
    plain, activated = TTLinear(64, 16, **options), TTLinear(64, 16, **options, cores_nonlinearity=torch.relu)
    templates = [torch.randn(12, 8, dtype=torch.float64) for _ in range(2)]
    assert separation_rank(plain, templates, join="outer").by_output == (2,) * 16
    assert separation_rank(activated, templates, join="outer").by_output == (4,) * 16
    assert separation_rank(activated, torch.eye(8), positions=2, join="outer").rank <= 2


def test_a_module_that_is_linear_in_all_positions_together_has_rank_two():
    """a x + b y + c = (a x + c) 1 + 1 (b y)."""
    torch.manual_seed(0)
    templates = torch.randn(6, 3)
    flat, stacked = nn.Linear(12, 5), nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    for left in (None, "odd_even", [0, 1, 2]):
        assert separation_rank(flat, templates, left, positions=4, join="concatenated").by_output == (2,) * 5
        assert separation_rank(stacked, templates, left, positions=4).by_output == (2,) * 5
    deep = nn.Sequential(flat, nn.Tanh(), nn.Linear(5, 1))
    assert separation_rank(deep, templates, positions=4, join="concatenated").rank > 2


def test_the_module_is_left_as_it_is_and_evaluated_in_pieces(monkeypatch):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(9, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.ReLU(inplace=True))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    templates = torch.randn(4, 3)
    grid = grid_tensor(network, templates, positions=3)
    assert network.training
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.dtype == before[name].dtype
    monkeypatch.setattr("expressivity.separation_rank.PIECE", (1000, 7))
    torch.testing.assert_close(grid_tensor(network, templates, positions=3), grid, rtol=1e-12, atol=1e-12)
    assert grid.dtype == torch.float64
    assert grid.shape == (4, 4, 4, 4)


def test_the_tolerance_is_relative_to_the_largest_value():
    grid = torch.diag(torch.tensor([100.0, 1.0, 1e-5, 1e-15], dtype=torch.float64))[..., None]
    assert rank_of_grid(grid).rank == 3
    assert rank_of_grid(grid).tolerance == 4 * torch.finfo(torch.float64).eps
    assert rank_of_grid(grid, tolerance=1e-2).rank == 1
    assert rank_of_grid(grid, tolerance=0).rank == 4
    assert rank_of_grid(grid.float()).rank == 2  # 1e-5 is within 4 * 1.2e-7 * 100
    assert rank_of_grid(torch.zeros(3, 3, 1)).rank == 0
    several = torch.stack([grid[..., 0], torch.eye(4, dtype=torch.float64)], dim=-1)
    assert rank_of_grid(several).by_output == (3, 4)
    assert rank_of_grid(several).singular_values.tolist() == [1] * 4


class Gives(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


EYE = torch.eye(3)


@pytest.mark.parametrize(
    ("templates", "options", "message"),
    [
        (EYE, {}, "with one tensor of templates for all, positions is None; it must be a whole number, at least 2"),
        (EYE, {"positions": 4, "join": "sum"}, "join is 'sum'; allowed: stacked, concatenated, outer"),
        ([EYE], {}, "templates has 1 tensors and positions is None"),
        ([EYE] * 4, {"positions": 3}, "templates has 4 tensors and positions is 3"),
        ([EYE, EYE[0], EYE, EYE], {}, r"templates of position 1: got \(3,\); it must be a real tensor \(M, n\)"),
        ([EYE, EYE[:0], EYE, EYE], {}, r"templates of position 1: got \(0, 3\)"),
        ([EYE, None], {}, "templates of position 1: got NoneType"),
        ([EYE, EYE * math.nan], {}, "templates of position 1 holds values that are not finite"),
        ([EYE, torch.eye(2), EYE, EYE], {}, r"sizes \[3, 2, 3, 3\]; with join 'stacked' all need the same"),
        (torch.eye(2), {"positions": 4}, r"TensorTrainScore does not accept inputs of size \(4, 2\), stacked from "),
        (EYE, {"positions": 4, "left": []}, r"left is \[\]; with 4 positions it must be None, 'odd_even' or diff"),
        (EYE, {"positions": 4, "left": [0, 1, 2, 3]}, "at least one and not all"),
        (EYE, {"positions": 4, "left": [0, 0]}, r"left is \[0, 0\]"),
        (EYE, {"positions": 4, "left": {4}}, r"left is \[4\]; .* indices from 0 to 3"),
        (EYE, {"positions": 4, "left": "halves"}, "left is 'halves'"),
        (EYE, {"positions": 4, "tolerance": -1}, "tolerance is -1; it must be a number, at least 0 and below 1"),
        (EYE, {"positions": 40}, r"the grid tensor has 3\^40 = 12,157,665,459,056,928,801 inputs of 120 entries and "),
        (EYE, {"positions": 40}, r"it needs [\d,.]+ GiB, [\d,.]+ GiB are free; give fewer templates or positions"),
    ],
)
def test_what_cannot_be_measured_is_one_line(templates, options, message):
    with pytest.raises(ExpressivityError, match=message) as error:
        separation_rank(score(0, 4, 3, 2), templates, **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: (x, x), r"Gives returned tuple for 1 inputs; it must be a real tensor \(rows, ..\)"),
        (lambda x: x.sum(), r"Gives returned torch.float64 \(\) for 1 inputs"),
        (lambda x: x[:0], r"Gives returned torch.float64 \(0, 2, 3\)"),
        (lambda x: x[..., :0], r"Gives returned torch.float64 \(1, 2, 0\)"),
        (lambda x: x.to(torch.complex128), "Gives returned torch.complex128"),
        (lambda x: x / 0, "Gives returned values that are not finite on the grid"),
    ],
)
def test_outputs_that_have_no_rank(function, message):
    with pytest.raises(ExpressivityError, match=message):
        separation_rank(Gives(function), EYE, positions=2)


def test_modules_that_are_none_or_cannot_be_copied():
    with pytest.raises(ExpressivityError, match="the module is .*; it must be an nn.Module"):
        separation_rank(torch.relu, EYE, positions=2)
    network = nn.Linear(3, 3)
    network.kept = network.weight * 2  # autograd refuses to copy it
    with pytest.raises(ExpressivityError, match="Linear cannot be copied: RuntimeError"):
        separation_rank(network, EYE, positions=2)


def test_the_outputs_count_towards_the_memory(monkeypatch):
    monkeypatch.setattr("expressivity.separation_rank.available_memory", lambda: 2**20)
    many = nn.Sequential(nn.Flatten(), nn.Linear(6, 1000))
    assert separation_rank(nn.Sequential(nn.Flatten(), nn.Linear(6, 1)), torch.randn(10, 3), positions=2).rank == 2
    with pytest.raises(ExpressivityError, match=r"10\^2 = 100 inputs of 6 entries and at least 1,000 outputs each"):
        separation_rank(many, torch.randn(10, 3), positions=2)
    monkeypatch.undo()
    assert 2**20 < available_memory() < 2**50


def test_score_functions_say_what_is_wrong():
    with pytest.raises(ValueError, match="product is 'sum'; allowed: multiply, rectifier"):
        TensorTrainScore(4, 3, 2, product="sum")
    with pytest.raises(ValueError, match="gives 2 inner ranks; 4 cores have 3"):
        TensorTrainScore(4, 3, [2, 2])
    with pytest.raises(ValueError, match="positions is 0, features is 3, outputs is 1; each must be at least 1"):
        TensorTrainScore(0, 3, 2)
    with pytest.raises(ValueError, match=r"x has shape \(2, 12\); its last dimensions must be \(4, 3\)"):
        score(0, 4, 3, 2)(torch.zeros(2, 12))
    assert score(0, 4, 3, [2, 3, 4], outputs=5)(torch.zeros(7, 4, 3, dtype=torch.float64)).shape == (7, 5)
