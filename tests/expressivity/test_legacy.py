"""Scripts of the first version: spellings, defaults, and results as four lists."""

import pytest
import torch
from torch import nn
from torch.distributions import Categorical

from expressivity import ArchitecturalSpace, ArchitectureComparator, ExpressivityError
from expressivity.networks import DeepNetwork

KINDS = {"LoRA": "low_rank", "n_diagonal": "n_diagonal", "fully_connected": "full"}


class Scripted(DeepNetwork):
    """A network with the keywords of those scripts."""

    def __init__(self, layer_type, dim, depth, rank=None, bias=True):
        own = {"LoRA": {"rank": rank}, "n_diagonal": {"diagonals": rank and 2 * rank - 1}}.get(layer_type, {})
        super().__init__(dim, depth, KINDS[layer_type], bias=bias, **own)


def spaces(count=2, **options):
    kinds = {"layer_type": "n_diagonal"}, {"layer_type": "LoRA"}, {"layer_type": "fully_connected"}
    parameters = [[{**kind, "dim": 5, "depth": 2, "rank": i + 1} for i in range(count)] for kind in kinds]
    return [
        ArchitecturalSpace((5,), kind["layer_type"], Scripted, each, epoch=5, **options)
        for kind, each in zip(kinds, parameters, strict=True)
    ]


def test_a_script_of_a_comparison_with_a_base(monkeypatch):
    shown = []
    monkeypatch.setattr(ArchitectureComparator, "plot", lambda self, statistic: shown.append(statistic))
    options = {"automatic_mesurement_mode": "parameter", "batch_size": 64, "automatic_batch_size_scale": None}
    options |= {"lr": 0.1, "lr_candidates": [0.1]}
    a, b, base = spaces(**options)
    comparator = ArchitectureComparator(A_space=a, B_space=b, base_space=base)
    result = comparator.compare(3, 2, variance_threashold=None, plot_mode="min", progress=False)
    assert shown == ["min"]
    min_a, mean_a, min_b, mean_b = result
    assert [len(each) for each in (min_a, mean_a, min_b, mean_b)] == [2] * 4
    assert min_a == [estimate.errors["A"].mean for estimate in result.estimates("min")]
    assert mean_a == [estimate.errors["A"].mean for estimate in result.estimates("mean")]
    assert min_b == [estimate.errors["B"].mean for estimate in result.estimates("min")]
    assert mean_b == [estimate.errors["B"].mean for estimate in result.estimates("mean")]
    assert len({each[1] for each in result}) == 4
    assert all(low <= mean for low, mean in zip(min_a + min_b, mean_a + mean_b, strict=True))
    again = comparator.compare(3, 2, variance_threshold=None, progress=False)
    assert list(again) == [min_a, mean_a, min_b, mean_b]


def test_its_measures_given_by_hand_and_its_warning_instead_of_an_error():
    measured = {"automatic_mesurement_mode": None, "batch_size": 16}
    a, b, _ = spaces(legacy=True, mesurement=[10, 20], **measured)
    c, *_ = spaces(legacy=True, mesurement=[10, 21], **measured)
    assert ArchitectureComparator(a, b).measures == {"A": [10, 20], "B": [10, 20]}
    with pytest.warns(UserWarning, match="without a base, A and B must have the same measure at each size"):
        comparator = ArchitectureComparator(b, c)
    assert comparator.compare(2, 1, progress=False).sizes[1].targets == 2
    new, _, _ = spaces(mesurement=[10, 21], **measured)
    plain, _, _ = spaces(mesurement=[10, 20], **measured)
    with pytest.raises(ExpressivityError, match="without a base, A and B must have the same measure"):
        ArchitectureComparator(plain, new)


def test_its_defaults_hold_under_legacy_only():
    old, new = (ArchitecturalSpace(5, "net", nn.Linear, [{"in_features": 5, "out_features": 5}], legacy=legacy)
                for legacy in (True, False))  # fmt: skip
    assert (old.lr, old.optimizer, old.rows(0)) == (0.001, torch.optim.AdamW, 30 * 32)
    assert (new.lr, new.optimizer, new.rows(0)) == (0.01, torch.optim.Adam, 30)
    assert (old.measured(0), new.measured(0)) == (960, 960)
    scaled = ArchitecturalSpace(
        5, "net", nn.Linear, {"in_features": 5, "out_features": 5}, legacy=True,
        batch_size=64, automatic_batch_size_scale=0.5, automatic_mesurement_mode="parameters",
    )  # fmt: skip
    assert scaled.rows(0) == 15  # there the scale overrules the number


def test_a_list_of_routines():
    calls = []

    def routine(name):
        return lambda network, x, y: calls.append(name) or network

    linear = [{"in_features": 4, "out_features": 4}] * 2
    a = ArchitecturalSpace(4, "a", nn.Linear, linear, train=[routine("first"), routine("second")], batch_size=16)
    b = ArchitecturalSpace(4, "b", nn.Linear, linear, train=[routine("third"), None], batch_size=16, epoch=1)
    with pytest.warns(UserWarning, match="the space sets train"):
        ArchitectureComparator(a, b).compare(2, 1, progress=False)
    assert [calls.count(name) for name in ("first", "second", "third")] == [4, 4, 4]  # targets and own members


def test_spellings_are_not_mixed_with_what_they_stand_for():
    a, b, base = spaces(automatic_measurement_mode="parameters", batch_size=16)
    with pytest.raises(ExpressivityError, match="comparator: A_space and A are the same keyword; set only A"):
        ArchitectureComparator(a, b, A_space=a)
    with pytest.raises(ExpressivityError, match="comparator: unknown keyword base_spaces; did you mean base_space?"):
        ArchitectureComparator(a, b, base_spaces=base)
    with pytest.raises(ExpressivityError, match="compare: unknown keyword max_iteration; did you mean max_iterations?"):
        ArchitectureComparator(a, b, base).compare(max_iteration=3)
    with pytest.raises(ExpressivityError, match="plot_mode is 'max'; allowed: min, mean"):
        ArchitectureComparator(a, b, base).compare(plot_mode="max")
    with pytest.raises(ExpressivityError, match="B is None; it must be an ArchitecturalSpace"):
        ArchitectureComparator(a)


class Tokens(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, width):
        super().__init__()
        self.table, self.out = nn.Embedding(12, width), nn.Linear(width, 12)

    def forward(self, ids):
        return self.out(torch.tanh(self.table(ids)).mean(1))


class LogitsLoss(nn.Module):
    def forward(self, predicted, target):
        return -(target.softmax(-1) * torch.log(predicted.softmax(-1) + 1e-8)).sum(-1).mean()


def test_a_script_with_tokens_and_a_loss_of_its_own():
    options = {"automatic_mesurement_mode": "parameters", "batch_size": 64, "epoch": [2, 3], "legacy": True}
    widths = [{"width": 2}, {"width": 4}]
    a, b = (ArchitecturalSpace((5,), name, Tokens, widths, **options) for name in "ab")
    law = Categorical(probs=torch.ones(12))
    result = ArchitectureComparator(a, b, criterion=LogitsLoss(), law=law).compare(4, 2, progress=False)
    for errors in result.sizes[1].fresh.values():
        assert errors.isfinite().all()
        assert (errors > 0).all()
