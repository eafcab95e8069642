"""Relative errors are 0 for the target itself and 1 for the best constant of the criterion, whatever the criterion."""

import functools

import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from expressivity import ArchitecturalSpace, ArchitectureComparator, ExpressivityError
from expressivity.criteria import CrossEntropy
from expressivity.scoring import relative_errors, scale_of
from tests.expressivity.quick import QUICK


class WrittenByAUser(nn.Module):
    """A cross-entropy between logits, as scripts have it: with a small number inside the logarithm."""

    def forward(self, predicted, target):
        return -(target.softmax(-1) * torch.log(predicted.softmax(-1) + 1e-8)).sum(-1).mean()


class Pinball(nn.Module):
    """Its best constant is a quantile."""

    def forward(self, predicted, target):
        difference = target - predicted
        return torch.maximum(0.9 * difference, -0.1 * difference).mean()


CRITERIA = [
    nn.MSELoss(),
    nn.MSELoss(reduction="sum"),
    nn.L1Loss(),
    nn.HuberLoss(delta=0.3),
    nn.SmoothL1Loss(),
    CrossEntropy(),
    WrittenByAUser(),
]


@pytest.mark.parametrize("criterion", [*CRITERIA, Pinball()], ids=lambda each: type(each).__name__)
def test_the_scale_is_that_of_a_slow_search(criterion):
    torch.manual_seed(0)
    y = torch.distributions.Exponential(1.0).sample((2, 101, 3)).double() * torch.tensor([1.0, 3.0, 0.2]) - 1
    scale = scale_of(y, criterion)
    for each, perfect, constant in zip(y, *scale, strict=True):
        assert perfect == criterion(each, each)

        def loss(c, each=each):
            return criterion(torch.tensor(c).expand_as(each), each).item()

        starts = [each.mean(0), each.median(0).values, each.quantile(0.9, dim=0)]
        slow = min(minimize(loss, start.numpy(), method="Nelder-Mead", tol=1e-10).fun for start in starts)
        # Where the criterion has kinks that it does not know, a search may end a little above.
        assert constant.item() == pytest.approx(slow, rel=0.02 if isinstance(criterion, Pinball) else 1e-5)
        assert constant.item() >= slow * (1 - 1e-6)


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda each: type(each).__name__)
def test_the_target_has_error_0_and_the_best_constant_1(criterion):
    torch.manual_seed(1)
    y = torch.randn(2, 64, 4).exp().double()
    owner, scale = torch.tensor([1, 0, 1]), scale_of(y, criterion)
    measure = functools.partial(
        relative_errors, x=torch.randn(2, 64, 4), y=y, owner=owner, criterion=criterion, scale=scale, at_once=64
    )
    assert measure(lambda rows: y[owner]).tolist() == pytest.approx([0, 0, 0], abs=1e-12)
    if isinstance(criterion, nn.MSELoss | nn.L1Loss):
        best = y.mean(1) if isinstance(criterion, nn.MSELoss) else y.quantile(0.5, dim=1)
        assert measure(lambda rows: best[owner][:, None].expand_as(y[owner])).tolist() == pytest.approx([1, 1, 1])
    other = measure(lambda rows: torch.zeros(3, 64, 4, dtype=torch.float64))
    assert (other >= 1 - 1e-6).all()  # no constant is better than the best one


def test_a_criterion_that_prefers_a_constant_is_refused():
    y = torch.randn(1, 32, 4, generator=torch.Generator().manual_seed(0))
    for wrong in (
        lambda a, b: -functional.mse_loss(a, b),
        lambda a, b: a.square().mean(),
        lambda a, b: functional.mse_loss(a, 1.3 * b),
        nn.CrossEntropyLoss(),
        nn.BCEWithLogitsLoss(),
    ):
        with pytest.raises(ExpressivityError, match="is not smallest where the output equals the target"):
            scale_of(y, wrong)
    for failing in (nn.BCELoss(), nn.NLLLoss(), nn.HuberLoss(delta=-1), nn.CosineEmbeddingLoss(), lambda a, b: {}["x"]):
        with pytest.raises(ExpressivityError, match="criterion .* failed on the targets"):
            scale_of(y, failing)
    with pytest.raises(ExpressivityError, match="the criterion must return one number"):
        scale_of(y, nn.MSELoss(reduction="none"))


@pytest.mark.parametrize("criterion", [CrossEntropy(), WrittenByAUser(), nn.L1Loss()])
def test_a_family_that_holds_the_targets_comes_near_0_under_any_criterion(criterion, space):
    full = space("full", lr=0.05, epoch=60, batch_size=256)
    result = ArchitectureComparator(full, full, full, criterion=criterion).compare(**QUICK)
    assert result.sizes[0].fresh["A"].max() < 0.1
    poor = space("low_rank", rank=1, lr=1e-7)
    result = ArchitectureComparator(poor, poor, full, criterion=criterion).compare(**QUICK)
    assert result.sizes[0].fresh["A"].min() > 0.3


HALF = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD, torch.optim.RMSprop])
def test_half_precision_is_fitted_alike_together_and_alone(dtype, optimizer, space):
    """An optimiser that keeps its numbers in half precision loses small steps, and the eps of Adam."""

    def network():
        return nn.Sequential(nn.Linear(4, 8, dtype=dtype), nn.Tanh(), nn.Linear(8, 4, dtype=dtype))

    half = ArchitecturalSpace(4, "half", network, batch_size=64, epoch=5, optimizer=optimizer)
    comparator = ArchitectureComparator(half, space(), space())
    fast, slow = (comparator.compare(**QUICK, fast=fast).sizes[0].fresh["A"] for fast in (True, False))
    assert fast.isfinite().all()
    assert torch.allclose(fast, slow, rtol=2e-3)


def test_a_name_is_no_criterion(space):
    with pytest.raises(ExpressivityError, match="criterion is 'mse'; it must be a module or a function"):
        ArchitectureComparator(space(), space(), space(), criterion="mse")
