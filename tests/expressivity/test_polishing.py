"""What another optimiser takes from the errors of fits."""

import math

import pytest
import torch
from torch import nn

from expressivity import ArchitecturalSpace, ArchitectureComparator, ComparisonResult
from expressivity.comparator import STATE
from expressivity.polishing import polished, polished_error
from expressivity.scoring import scale_of
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
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.mse_loss(network(x), y).backward()
        optimizer.step()
    return network


@pytest.mark.filterwarnings("ignore:space 'bad'")
@pytest.mark.parametrize(
    ("architecture", "recipe"), [(BadlyScaled, {"train": descend}), (Rotated, {"lr": "auto", "epoch": 20})]
)
def test_fits_that_rest_far_from_their_optimum_lose_against_nobody(architecture, recipe, tmp_path):
    """Both families hold all matrices. Floors and movements are small: only another optimiser tells."""
    data = {"batch_size": 128, "measure": 16}
    good, base = (ArchitecturalSpace(4, name, Plain, lr=0.03, epoch=20, **data) for name in ("good", "base"))
    comparator = ArchitectureComparator(good, ArchitecturalSpace(4, "bad", architecture, **recipe, **data), base)
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
        assert torch.allclose(stack.network(place)(rows), wanted, atol=1e-6)


class Brittle(nn.Linear):
    """Gives nan as soon as its weight changes."""

    def __init__(self):
        super().__init__(3, 3)
        self.register_buffer("start", self.weight.detach().clone())

    def forward(self, x):
        same = torch.equal(self.weight, self.start)
        return super().forward(x) * (1 if same else math.nan)


def test_a_loss_is_never_larger_afterwards_and_the_network_is_left_alone():
    torch.manual_seed(0)
    x, y = torch.randn(2, 32, 3, dtype=torch.float64)
    network = Brittle().train()
    before = network.weight.clone()
    result = polished(network, x, y, nn.functional.mse_loss)
    assert torch.equal(network.weight, before)
    assert network.training
    assert torch.equal(result.weight, before.double())


def test_dropout_is_off():
    torch.manual_seed(0)
    x = torch.randn(32, 3, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)).train()
    result = polished(network, x, x, nn.functional.mse_loss)
    assert torch.allclose(result(x), x, atol=1e-4)


def test_rows_in_parts_are_the_same_rows(monkeypatch):
    torch.manual_seed(0)
    x, y = torch.randn(2, 33, 3, dtype=torch.float64)
    network = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    whole = polished(network, x, y, nn.functional.mse_loss)
    monkeypatch.setattr("expressivity.polishing.MOST_BYTES", 4 * bytes_of_step(network.double(), x[:1]))
    parts = polished(network, x, y, nn.functional.mse_loss)
    assert torch.allclose(whole(x), parts(x), atol=1e-6)
    assert nn.functional.mse_loss(whole(x), y) < nn.functional.mse_loss(network(x), y) - 0.1


class Single(nn.Linear):
    """Works in single precision only."""

    def forward(self, x):
        return super().forward(x.float())


class NotCopied(nn.Linear):
    """Holds what cannot be copied."""

    def __init__(self):
        super().__init__(4, 4)
        self.numbers = (number for number in range(3))


def test_a_network_that_cannot_be_copied_is_compared_all_the_same(space):
    family = ArchitecturalSpace(4, "own", NotCopied, batch_size=32, lr_candidates=[0.01])
    fitter, source = of_contest(ArchitectureComparator(family, family, space()))
    assert fitter.polish(source.draw(range(3)), range(3)).isnan().all()


@pytest.mark.parametrize("network", [lambda x: x, Single(3, 3), nn.Linear(3, 3).requires_grad_(False), nn.Linear(2, 2)])
def test_what_cannot_be_polished_has_no_error(network):
    rows = torch.randn(4, 1, 16, 3)
    target = Targets(*rows, redrawn=0)
    scales = scale_of(target.fresh_y, nn.MSELoss()), scale_of(target.y, nn.MSELoss())
    assert math.isnan(polished_error(network, target, nn.MSELoss(), scales, 0))
