"""What another optimiser takes from the errors of fits."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace, ArchitectureComparator, ComparisonResult
from expressivity.comparator import STATE
from expressivity.polishing import polish, polished_error, relative
from expressivity.results import SizeResult
from expressivity.sizes import bytes_of_step
from expressivity.targets import Targets
from expressivity.truth import closed_form_errors

DRAWS = {"seed": 0, "sub_iterations": 2, "evaluation_rows": 64}


class Plain(nn.Linear):
    """x W, started in its own units."""

    def __init__(self):
        super().__init__(4, 4, bias=False)
        nn.init.normal_(self.weight, std=0.5)


class BadlyScaled(Plain):
    """The same maps, of which gradient descent learns the last rows too slowly to be seen to learn."""

    def forward(self, x):
        return super().forward(x * torch.tensor([1, 0.1, 0.01, 0.001], dtype=x.dtype))


class Rotated(Plain):
    """The same, but in no entry of the weight alone, so that Adam does not learn them either."""

    def __init__(self):
        super().__init__()
        turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(5)))[0]
        self.register_buffer("mixed", turn @ torch.diag(torch.tensor([1, 0.1, 0.01, 0.003])) @ turn.T)

    def forward(self, x):
        return super().forward(x @ self.mixed)


def descend(network, x, y):
    """Gradient descent as a routine of the user's own."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()
    return network


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:space 'bad'")
@pytest.mark.parametrize(
    ("architecture", "recipe", "criterion"),
    [
        (BadlyScaled, {"train": descend}, nn.MSELoss()),
        (Rotated, {"lr": "auto", "epoch": 20}, nn.MSELoss()),
        (Rotated, {"lr": "auto", "epoch": 20}, nn.L1Loss()),
    ],
)
def test_fits_that_rest_far_from_their_optimum_lose_against_nobody(architecture, recipe, criterion, tmp_path):
    """Both families hold all matrices. Floors and movements are small: only another optimiser tells."""
    data = {"batch_size": 128, "measure": 16}
    good, base = (ArchitecturalSpace(4, name, Plain, lr=0.03, epoch=20, **data) for name in ("good", "base"))
    comparator = ArchitectureComparator(
        good, ArchitecturalSpace(4, "bad", architecture, **recipe, **data), base, criterion
    )
    options = {"sub_iterations": 2, "evaluation_rows": 128, "progress": False, "save_path": tmp_path}
    result = comparator.compare(32, **options)
    assert [result.estimates(statistic)[0].winner for statistic in ("min", "mean")] == ["underfitted"] * 2
    assert any("L-BFGS still lowers the error of bad" in line for line in result.advice())
    (size,) = result.sizes
    assert size.errors["polished"]["B"].shape == (12, 2)
    assert size.errors["polished"]["B"].max() < 0.05
    row = next(row for row in result.rows() if row["statistic"] == "min")
    assert row["gain_of_polish_B"] > 0.4
    assert row["gain_of_polish_A"] is None  # nobody asked what a better fit of A would be worth

    read = ComparisonResult.from_json(tmp_path / STATE)
    assert torch.equal(read.sizes[0].errors["polished"]["B"], size.errors["polished"]["B"])
    assert comparator.compare(32, **options).rows() == result.rows()
    size.errors["polished"]["B"] = size.errors["polished"]["B"][:0]
    assert result.estimates("min")[0].winner == "A"  # what it would say without


def test_of_linear_families_it_finds_the_optimum(space):
    full, wide = space(epoch=1), space(depth=1, batch_size=64)
    fitter, source = of_contest(ArchitectureComparator(full, full, wide))
    targets = source.draw(range(3))
    errors, before = fitter.polish(targets, range(3)), fitter.fit(targets, range(3)).fresh
    optima = [
        closed_form_errors(fitter.network(0, 0), targets.x[k], targets.y[k], targets.fresh_x[k], targets.fresh_y[k])
        for k in range(3)
    ]
    assert before.min() > 0.05
    assert torch.allclose(errors, torch.tensor(optima, dtype=torch.float64)[:, None].expand(3, 2), atol=1e-10)
    fitter.stack_size = 1
    assert torch.allclose(fitter.polish(targets, range(3)), errors, atol=1e-10)


def of_contest(comparator):
    contest = comparator.contest(0, DRAWS, None, True)
    return contest.fitters["A"], contest.sources["A"]


def test_networks_of_a_stack_are_what_the_stack_computes(space):
    family = space("low_rank", rank=2, depth=2, activation="tanh")
    fitter, source = of_contest(ArchitectureComparator(family, family, space()))
    targets, numbers = source.draw(range(2)), range(2)
    networks, owner = fitter._begun(fitter._starts(numbers))
    stack = fitter._fit_networks(networks, targets, owner, (0, 0, 0), fitter.recipe)
    outputs = stack(targets.x[owner])
    for place, (wanted, rows) in enumerate(zip(outputs, targets.x[owner], strict=True)):
        assert torch.allclose(stack.copied_to(fitter.network(0, 0), place)(rows), wanted, atol=1e-6)


class Brittle(nn.Linear):
    """Gives nan as soon as its weight changes."""

    def __init__(self):
        super().__init__(3, 3)
        self.register_buffer("start", self.weight.detach().clone())

    def forward(self, x):
        same = torch.equal(self.weight, self.start)
        return super().forward(x) * (1 if same else math.nan)


def test_a_loss_is_never_larger_afterwards():
    torch.manual_seed(0)
    x, y = torch.randn(2, 32, 3, dtype=torch.float64)
    network = Brittle().double()
    before, loss = network.weight.clone(), nn.functional.mse_loss(network(x), y).item()
    assert polish(network, x, y, nn.functional.mse_loss) == pytest.approx(loss)
    assert torch.equal(network.weight, before)
    network.weight.data += 1
    with pytest.raises(FloatingPointError):
        polish(network, x, y, nn.functional.mse_loss)


class Logarithm(nn.Module):
    """Is nan for weights below 0, into which the first line search leads."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64))

    def forward(self, x):
        return 0.01 * x * self.weight.log()


def test_where_a_line_search_leaves_the_domain_it_begins_again_with_a_shorter_step():
    torch.manual_seed(0)
    x = torch.randn(64, 3, dtype=torch.float64)
    y = x * 0.01 * torch.tensor([0.3, 1.2, 5.0], dtype=torch.float64).log()
    network = Logarithm()
    before = nn.functional.mse_loss(network(x), y)
    assert polish(network, x, y, relative(nn.MSELoss(), y)) < 0.01 * before / y.square().mean()


@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_it_does_not_depend_on_the_unit_of_a_parameter(scale):
    torch.manual_seed(0)
    x = torch.randn(64, 3, dtype=torch.float64)
    network = Times(scale)
    assert polish(network, x, x, relative(nn.MSELoss(), x)) < 1e-6


class Times(nn.Linear):
    """The weight in another unit."""

    def __init__(self, scale):
        super().__init__(3, 3, dtype=torch.float64)
        self.scale = scale

    def forward(self, x):
        return self.scale * super().forward(x)


def test_rows_in_parts_are_the_same_rows(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.randn(2, 33, 3, dtype=torch.float64)
    start = nn.Sequential(nn.Linear(3, 3), nn.Tanh()).double()
    whole, parts = copy.deepcopy(start), copy.deepcopy(start)
    left = polish(whole, x, y, nn.functional.mse_loss)
    seen = []
    parts.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    each = bytes_of_step(parts, x[:2]) - bytes_of_step(parts, x[:1])
    monkeypatch.setattr("expressivity.polishing.MOST_BYTES", 4 * each)
    assert polish(parts, x, y, nn.functional.mse_loss) == pytest.approx(left, rel=1e-6)
    assert max(seen) == 4
    assert left < nn.functional.mse_loss(start(x), y) - 0.1


def target_of(network):
    """The target that a network is, on random rows."""
    x, fresh_x = torch.randn(2, 1, 64, 3)
    with torch.no_grad():
        return Targets(x, network(x), fresh_x, network(fresh_x), redrawn=0)


def test_dropout_is_off_and_what_cannot_be_copied_is_no_hindrance():
    torch.manual_seed(0)
    target = target_of(nn.Linear(3, 3))

    def make():
        network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)).train()
        network.numbers = (number for number in range(3))
        return network

    assert polished_error(make, target, nn.MSELoss()) < 1e-9


def test_where_a_criterion_has_kinks_the_square_leads_the_way():
    torch.manual_seed(0)
    target = target_of(nn.Linear(3, 3))
    assert polished_error(lambda: nn.Linear(3, 3), target, nn.L1Loss()) < 1e-5


class Single(nn.Module):
    """Holds a tensor that double precision does not reach."""

    def __init__(self):
        super().__init__()
        self.layer, self.unit = nn.Linear(3, 3), torch.eye(3)

    def forward(self, x):
        return self.layer(x @ self.unit)


def test_single_precision_where_a_network_knows_no_other():
    torch.manual_seed(0)
    assert polished_error(Single, target_of(nn.Linear(3, 3)), nn.MSELoss()) < 1e-6


def test_tokens_stay_whole_numbers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(12, 2))
    x, fresh_x = torch.randint(0, 5, (2, 1, 64, 3))
    with torch.no_grad():
        target = Targets(x, network(x[0])[None], fresh_x, network(fresh_x[0])[None], redrawn=0)
    assert polished_error(lambda: network, target, nn.MSELoss()) < 1e-6


@pytest.mark.parametrize("network", [nn.Linear(3, 3).requires_grad_(False), nn.Linear(2, 2)])
def test_what_cannot_be_polished_says_so(network):
    with pytest.raises((ValueError, RuntimeError)):
        polished_error(lambda: network, target_of(nn.Linear(3, 3)), nn.MSELoss())


def frozen(network, x, y):
    return descend(network, x, y).requires_grad_(False)


def wrapped(network, x, y):
    return nn.Sequential(descend(network, x, y))


def a_function(network, x, y):
    return descend(network, x, y).forward


@pytest.mark.filterwarnings("ignore:space 'own'")
@pytest.mark.parametrize(("routine", "works"), [(frozen, True), (wrapped, True), (a_function, False)])
@pytest.mark.parametrize("restarts", [1, 3])
def test_whatever_a_routine_returns(space, routine, works, restarts):
    own = ArchitecturalSpace(4, "own", BadlyScaled, batch_size=32, train=routine)
    base = space(bias=False)
    contest = ArchitectureComparator(own, own, base).contest(0, {**DRAWS, "sub_iterations": restarts}, None, True)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        errors = contest.polish(["A"])["polished"]["A"]
    said = ["another optimiser cannot go on with its fits" in str(each.message) for each in warned]
    assert said == ([] if works else [True])
    assert errors.shape == (12, min(2, restarts))
    assert errors.isnan().all() != works
    assert not works or errors.max() < 0.05


def test_a_family_that_loses_by_one_statistic_is_polished():
    fresh = {"A": torch.full((40, 3), 0.3), "B": torch.full((40, 3), 0.3)}
    fresh["B"][:, :2] = 0.6
    size = SizeResult.empty(0, {"A": 1, "B": 1, "base": 1}, 3)
    size.add({kind: {f: each.double() for f, each in fresh.items()} for kind in ("fresh", "training", "half")})
    size.add({"floor": {f: torch.zeros(40, 3, dtype=torch.float64) for f in "AB"}})
    assert [size.estimate(statistic, 0.95).winner for statistic in ("min", "mean")] == ["undecided", "A"]
    assert size.unpolished_losers(0.95) == ["B"]
    size.add({"polished": {"B": torch.full((12, 2), 0.3, dtype=torch.float64)}})
    assert size.unpolished_losers(0.95) == []
    assert size.estimate("mean", 0.95).winner == "underfitted"
