"""Which plans there are, which one is chosen, and what is said about it."""

from dataclasses import replace

import pytest
import torch

from t3nsor import Plan, ShapeError, TensorTrain, TRLinear, TTBias, TTLinear, explain, linear_with_branch, random_matrix
from t3nsor.contraction.cost_model import choose_plan, cost
from t3nsor.contraction.ops import tt_matmul
from t3nsor.contraction.plans import STRATEGIES, ContractionSpec, candidates
from t3nsor.shapes import auto_shape


def sizes(d=3, rank=4, rows=1024, closed=False, **changes):
    ranks = (rank,) * (d + 1) if closed else (1, *(rank,) * (d - 1), 1)
    return ContractionSpec(auto_shape(768, d), auto_shape(3072, d), ranks, closed, rows, **changes)


@pytest.mark.parametrize("d", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("closed", [False, True], ids=["train", "ring"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_every_strategy_has_a_plan_and_takes_the_cheapest(d, closed, backward):
    case = sizes(d, closed=closed)
    for strategy in STRATEGIES:
        plans = candidates(case, strategy, backward)
        chosen = choose_plan(case, strategy, backward)
        assert cost(case, chosen, backward) == min(cost(case, plan, backward) for plan in plans)
        assert set(plans) <= set(candidates(case, "auto", backward))
        assert all(sum(plan.groups) == d for plan in plans)
        assert backward or not {plan.kind for plan in plans} & {"hybrid", "paired"}


def test_strategies_name_families_of_plans():
    def families(strategy, backward=False):
        return {str(plan) for plan in candidates(sizes(4), strategy, backward)}

    assert families("left_to_right") == {"left to right (1)(2)(3)(4)"}
    assert families("right_to_left") == {"right to left (1)(2)(3)(4)"}
    assert families("pairs") == {"left to right (1 2)(3 4)", "right to left (1 2)(3 4)"}
    assert len(families("two_factor")) == 6
    assert families("full") == {"full (1 2 3 4)", "full (1)(2 3 4)", "full (1 2)(3 4)", "full (1 2 3)(4)"}
    assert all(name.startswith("hybrid") for name in families("hybrid", backward=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_small_rank_runs_as_a_chain_and_large_rank_as_the_full_matrix(dtype, device):
    assert choose_plan(sizes(2, rank=1, dtype=dtype, device="cpu")).kind == "chain"
    large = choose_plan(sizes(2, rank=64, rows=4096, dtype=dtype, device=device))
    assert large.kind == "full" or len(large.groups) == 1


def test_the_choice_depends_on_what_is_needed():
    case = sizes(2, rank=2, with_dense_weight=True)
    assert choose_plan(case).kind == "full"
    assert choose_plan(case, backward=True).kind == "hybrid"
    frozen = replace(case, x_gradient=False)
    frozen_cost, full_cost = (cost(each, choose_plan(each, backward=True), True) for each in (frozen, case))
    assert frozen_cost < full_cost / 2


def test_explain_prints_candidates_costs_and_the_choice(capsys):
    explain(TTLinear(768, 3072, rank=2, strategy="two_factor"), 1024)
    text = capsys.readouterr().out
    assert "768" in text
    assert "matrix rank at most 768" in text
    assert "forward, 1024 rows of float32 on cpu, strategy two_factor" in text
    assert "-> " in text
    assert text.count("->") == 3  # the shape of the train, and one choice for each pass
    assert "full (1)(2 3)" in text
    explain(TTLinear(768, 3072, rank=2), 180)
    assert "forward, 180 rows, counted as 128, of float32" in capsys.readouterr().out
    explain(TRLinear(64, 64, rank=2, cores_nonlinearity=torch.relu), 8)
    assert "only one order" in capsys.readouterr().out
    explain(random_matrix(((4, 4), (4, 4)), 2), 8, dtype=torch.bfloat16, beside=True)
    assert "bfloat16 on cpu beside a dense weight" in capsys.readouterr().out


TT = random_matrix(((2, 2), (2, 2)), 2)
X = torch.ones(3, 4)


def swapped():
    """A train whose last core was replaced after it was built, by one of another dtype."""
    train = random_matrix(((2, 2), (2, 2)), 2, trainable=True)
    setattr(train.cores, "1", torch.nn.Parameter(train.cores[1].detach().double()))
    return train


def under_autocast(x):
    with torch.autocast("cpu", torch.bfloat16):
        return tt_matmul(x, TT)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tt_matmul(torch.ones(3, 5), TT), "x has shape (3, 5); its last dimension must be 4"),
        (lambda: tt_matmul(torch.tensor(1.0), TT), "x has shape (); its last dimension must be 4"),
        (lambda: tt_matmul(X, TT, "best"), "strategy is 'best'; allowed: auto, left_to_right"),
        (lambda: tt_matmul(X, TT, Plan("full", (1, 2))), "is a plan for 3 cores; the chain has 2"),
        (
            lambda: tt_matmul(X.double(), TT),
            "x of shape (3, 4) is torch.float64 on cpu, a core torch.float32 on cpu",
        ),
        (lambda: tt_matmul(X.to("meta"), TT), "is torch.float32 on meta, a core torch.float32 on cpu"),
        (lambda: tt_matmul(X, TT, bias=torch.ones(3)), "bias has shape (3,); with 4 output features it must be (4,)"),
        (lambda: tt_matmul([[1.0] * 4], TT), "x is a list; it must be a tensor"),
        (lambda: tt_matmul(torch.zeros(1, 4).to_sparse(), TT), "has the layout torch.sparse_coo; it must be dense"),
        (lambda: tt_matmul(torch.zeros(1, 4), TT, bias=1.0), "bias is a float; it must be a tensor"),
        (lambda: linear_with_branch(torch.zeros(1, 4), [[1.0]], TT), "weight is a list; it must be a tensor"),
        (lambda: tt_matmul(X, torch.ones(4, 4)), "tt is a Tensor; it must be a TensorTrain or TensorRing"),
        (lambda: tt_matmul(X, swapped()), "a core torch.float64 on cpu"),
        (lambda: Plan("foo", (1, 1)), "Plan('foo', (1, 1), False): the kind is one of chain, full, paired, hybrid"),
        (lambda: Plan("full", (2,)), "two of them unless the kind is"),
        (lambda: Plan("chain", [1, 1]), "the groups a tuple of whole numbers"),
        (lambda: Plan("chain", (2, 0)), "of at least 1"),
        (lambda: Plan("chain", (1, True)), "of at least 1"),
        (lambda: Plan("chain", (1, 1), "yes"), "right_to_left True or False"),
        (lambda: linear_with_branch(X, None, TT), "weight is None"),
        (lambda: linear_with_branch(X, torch.ones(4, 4).to_sparse(), TT), "weight of shape (4, 4) has the layout"),
        (lambda: linear_with_branch(X, torch.ones(4, 4), TT, scale=10**400), "it must be a finite number"),
        (lambda: tt_matmul(torch.nested.nested_tensor([X, X]), TT), "x is a nested tensor; it must be dense"),
        (lambda: TRLinear(8, 8, strategy=Plan("chain", (1, 1, 1))), "has 3 factors; a ring needs two"),
        (lambda: linear_with_branch(X, torch.ones(4, 4), TT, scale=torch.ones(())), "it must be a finite number"),
        (lambda: linear_with_branch(X, torch.ones(4, 4), TT, scale=float("nan")), "scale is nan"),
        (lambda: under_autocast(X.double()), "is torch.float64 on cpu, a core torch.float32 on cpu"),
        (lambda: under_autocast(X.long()), "x of shape (3, 4) is torch.int64"),
        (lambda: linear_with_branch(X, torch.ones(4, 3), TT), "weight has shape (4, 3); with a matrix 4 -> 4"),
        (lambda: linear_with_branch(X, torch.ones(4, 4).half(), TT), "weight torch.float16 on cpu"),
        (lambda: tt_matmul(X, TensorTrain([torch.ones(1, 4, 1)])), "is a tensor of shape (4,)"),
        (lambda: explain(TTBias(4, d=2), 3), "explain takes a layer with a tensor-train matrix"),
        (lambda: explain(torch.nn.Linear(2, 2), 3), "explain takes a layer"),
        (lambda: explain(TT, 3, dtype="float32"), "dtype is 'float32'; it must be a floating-point torch.dtype"),
        (lambda: explain(TT, 0), "rows is 0; it must be a whole number of at least 1"),
    ],
)
def test_errors_state_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
