"""The plans of each strategy, and the choice among them."""

from dataclasses import replace

import pytest
import torch

from t3nsor import Plan, ShapeError
from t3nsor.contraction.cost_model import choose_plan, cost, first_plan, rows_per_block
from t3nsor.contraction.plans import STRATEGIES, ContractionSpec, candidates
from t3nsor.machine import ASSUMED
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
    assert len(families("two_factor")) == 6
    assert families("full") == {"full (1)(2 3 4)", "full (1 2)(3 4)", "full (1 2 3)(4)"}
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
    forward = cost(case, choose_plan(case))
    assert frozen_cost - forward < (full_cost - forward) / 2


def test_the_forward_pass_before_a_backward_pass_is_chosen_with_it():
    """Alone the full matrix is cheaper; with gradients the chain is, whose states need not be computed again."""
    case = ContractionSpec((96, 32), (32, 96), (1, 2, 1), False, 512, with_dense_weight=True)
    chain, full, rates = Plan("chain", (1, 1)), Plan("full", (1, 1)), ASSUMED["cpu", 4]
    assert cost(case, full, rates=rates) < cost(case, chain, rates=rates)
    assert choose_plan(case, rates=rates) == full
    assert choose_plan(case, backward=True, rates=rates) == first_plan(case, chain, rates=rates) == chain
    assert first_plan(replace(case, save="least"), chain, rates=rates) == full


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Plan("foo", (1, 1)), "Plan('foo', (1, 1), False): the kind is one of chain, full, paired, hybrid"),
        (lambda: Plan("full", (2,)), "two of them unless the kind is"),
        (lambda: Plan("chain", [1, 1]), "the groups a tuple of whole numbers"),
        (lambda: Plan("chain", (2, 0)), "of at least 1"),
        (lambda: Plan("chain", (1, True)), "of at least 1"),
        (lambda: Plan("chain", (1, 1), "yes"), "right_to_left True or False"),
    ],
)
def test_errors_state_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)


@pytest.mark.parametrize("plan", [Plan("chain", (1, 2)), Plan("paired", (1, 2))], ids=str)
def test_blocks_of_rows_grow_with_the_threads_whose_caches_they_fill(plan, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    one = rows_per_block(sizes(), plan)
    for threads, times in ((2, 2), (8, 8), (64, 8)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert rows_per_block(sizes(), plan) == times * one
