import doctest
import math
import time
from itertools import combinations_with_replacement, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor
from t3nsor import shapes
from t3nsor.errors import ShapeError
from t3nsor.initializers import random_matrix, random_tensor
from t3nsor.shapes import (
    auto_shape,
    best_d,
    check_matrix_shape,
    check_ranks,
    max_rank,
    parameter_count,
    skewed_shape,
    suggest_shape,
)


def test_published_shapes():
    assert auto_shape(768) == (8, 8, 12)
    assert auto_shape(3072) == (12, 16, 16)
    assert auto_shape(3072, mode="descending") == (16, 16, 12)
    assert auto_shape(3072, mode="mixed") == (12, 16, 16)
    assert auto_shape(2310, 5, mode="mixed") == (2, 11, 3, 7, 5)
    assert auto_shape(257) == (1, 1, 257)
    assert not doctest.testmod(shapes).failed


def entropy(factors):
    return -sum(f / sum(factors) * math.log(f / sum(factors)) for f in factors)


def closeness(factors):
    return -sum((f - sum(factors) / len(factors)) ** 2 for f in factors)


@given(n=st.integers(1, 400), d=st.integers(1, 4), criterion=st.sampled_from(["entropy", "variance"]))
def test_auto_shape_takes_the_best_of_all_factorisations(n, d, criterion):
    divisors = [k for k in range(1, n + 1) if n % k == 0]
    every = [c for c in combinations_with_replacement(divisors, d) if math.prod(c) == n]
    assert list(shapes.factorisations(n, d)) == every
    score = entropy if criterion == "entropy" else closeness
    found = auto_shape(n, d, criterion)
    assert math.prod(found) == n
    assert score(found) == pytest.approx(max(map(score, every)))


@pytest.mark.parametrize("n", [720_720, 725_760, 997_920, 2**19, 999_983])
def test_the_worst_numbers_up_to_a_million_split_at_once(n):
    start = time.perf_counter()
    assert math.prod(auto_shape(n, 20)) == n
    assert len(auto_shape(n, 6, "variance")) == 6
    assert time.perf_counter() - start < 2


@given(n=st.integers(1, 100_000), d=st.integers(1, 8))
def test_suggested_shapes_pad_a_little_and_split_well(n, d):
    found = suggest_shape(n, d)
    size = math.prod(found)
    root = next(k for k in range(1, n + 1) if k**d >= n)
    assert len(found) == d
    assert max(found) <= 2 * root
    assert n <= size < 2 * n
    assert found == auto_shape(size, d)
    assert all(max(auto_shape(k, d)) > 2 * root for k in range(n, min(size, n + 20)))


def test_suggested_shapes_of_vocabularies():
    assert suggest_shape(768) == auto_shape(768)
    assert math.prod(suggest_shape(30_011)) == 30_012
    assert suggest_shape(625) == (7, 9, 10), "5 * 5 * 25 has small primes only, but does not split well"
    assert math.prod(suggest_shape(30_522)) == 30_525
    assert suggest_shape(257, mode="descending") == (13, 5, 4)
    assert math.prod(suggest_shape(999_983, 20)) == 2**20


@pytest.mark.parametrize(("sizes", "q"), [((768, 3072), 8), ((768, 768), 4), ((30, 42), 3), ((35, 49), None)])
def test_skewed_shapes_cost_as_much_as_lora_and_reach_more(sizes, q):
    shape = skewed_shape(*sizes, q)
    check_matrix_shape(shape, *sizes)
    assert parameter_count(shape, 5) == 5 * sum(sizes)
    assert max_rank(shape, 2) == min(2 * shape[1][0] ** 2, *sizes)


def test_the_automatic_skew_is_nearest_to_eight():
    assert skewed_shape(768, 3072) == ((96, 8), (8, 384))
    assert skewed_shape(20, 50) == ((2, 10), (10, 5))
    assert skewed_shape(30, 60)[1][0] == 6
    assert skewed_shape(13 * 4, 13 * 5)[1][0] == 13
    assert skewed_shape(38, 57)[1][0] == 19
    assert skewed_shape(7, 9) == ((7, 1), (1, 9))


def smallest_cut(shape, ranks, ring):
    """The smallest cut over all 2^d ways to split the cores."""
    (rows, columns), d = shape, len(shape[0])
    cuts = []
    for sides in product((0, 1), repeat=d):
        legs = math.prod(rows[k] if side else columns[k] for k, side in enumerate(sides))
        bonds = [k for k in range(0 if ring else 1, d) if sides[k - 1] != sides[k]]
        cuts.append(legs * math.prod(ranks[k] for k in bonds))
    return min(cuts)


@st.composite
def shapes_and_ranks(draw, largest=3):
    d, ring = draw(st.integers(1, 4)), draw(st.booleans())
    rows, columns = (draw(st.lists(st.integers(1, largest), min_size=d, max_size=d)) for _ in range(2))
    count = d if ring else d - 1
    return (rows, columns), draw(st.lists(st.integers(1, 5), min_size=count, max_size=count)), ring


@given(shapes_and_ranks(largest=50))
def test_max_rank_is_the_smallest_cut(case):
    shape, rank, ring = case
    assert max_rank(shape, rank, ring) == smallest_cut(shape, check_ranks(rank, len(shape[0]), ring), ring)


@settings(max_examples=60, deadline=None)
@given(shapes_and_ranks())
def test_no_matrix_exceeds_its_max_rank(case):
    shape, rank, ring = case
    matrix = random_matrix(shape, rank, ring=ring, dtype=torch.float64).full()
    assert torch.linalg.matrix_rank(matrix) <= max_rank(shape, rank, ring)


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "shape", [((12, 4), (4, 16)), ((4, 12), (4, 16)), ((2, 3, 8), (9, 4, 2)), ((4, 4, 4), (4, 4, 4)), ((9, 1), (1, 9))]
)
def test_random_matrices_reach_their_max_rank(shape, rank, ring):
    generator = torch.Generator().manual_seed(0)
    matrix = random_matrix(shape, rank, ring=ring, dtype=torch.float64, generator=generator).full()
    assert torch.linalg.matrix_rank(matrix) == max_rank(shape, rank, ring)


@given(shapes_and_ranks())
def test_parameters_are_counted_without_building(case):
    shape, rank, ring = case
    assert parameter_count(shape, rank, ring=ring) == random_matrix(shape, rank, ring=ring).numel()
    assert parameter_count(shape[0], rank, ring=ring) == random_tensor(shape[0], rank, ring=ring).numel()


def test_parameters_of_automatic_shapes():
    assert parameter_count((768, 3072), 8, d=3) == 8 * 8 * 12 + 64 * 8 * 16 + 8 * 12 * 16
    assert parameter_count((768, 3072), 8, d=3, ring=True) == 64 * (8 * 12 + 8 * 16 + 12 * 16)
    assert parameter_count((6, 4), 5, d=1) == 24
    counts = {d: parameter_count((768, 3072), 2, d) for d in range(1, 7)}
    assert best_d(768, 3072, 2) == min(counts, key=counts.get)
    assert best_d(257, 257, 8) == 1
    assert best_d(257, 257, 8, ring=True) == 1
    assert best_d(768, 768, 8, d_max=2) == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: auto_shape(0), "n is 0"),
        (lambda: auto_shape(12, 0), "d is 0"),
        (lambda: auto_shape(12, mode="up"), "mode is 'up'; allowed: ascending, descending, mixed"),
        (lambda: auto_shape(12, criterion="size"), "criterion is 'size'"),
        (lambda: suggest_shape(-3), "suggest_shape: n is -3"),
        (lambda: suggest_shape(7, mode="up"), "mode is 'up'"),
        (lambda: skewed_shape(12, 0), "out_features is 0"),
        (lambda: skewed_shape(12, 8, 3), "q is 3; it must divide both in_features 12 and out_features 8"),
        (lambda: skewed_shape(12, 8, 0), "q is 0"),
        (lambda: parameter_count(12, 2, d=2), "shape is 12; with d it is (in_features, out_features)"),
        (lambda: parameter_count((12, 0), 2, d=2), "n is 0"),
        (lambda: parameter_count((12, 2), 2, d=0), "d is 0"),
        (lambda: parameter_count((12, 0), 2), "holds 0"),
        (lambda: best_d(12, 12, 2, d_max=0), "d_max is 0"),
        (lambda: best_d(12, 12, 0), "rank is 0"),
        (lambda: max_rank((4, 4), 2), "must be [[in factors], [out factors]]"),
        (lambda: check_matrix_shape([[2, 3], [4]]), "2 in and 1 out factors"),
        (lambda: check_matrix_shape([[2, 3], [4, 0]]), "holds 0"),
        (lambda: check_matrix_shape("ab"), "shape"),
        (lambda: check_matrix_shape(5), "must be [[in factors], [out factors]]"),
        (lambda: check_matrix_shape([[2, 3], [4, 5]], 8, 20), "multiply to 6, the input dimension is 8"),
        (lambda: check_ranks(0, 1), "rank is 0"),
        (lambda: check_ranks([2], 3), "gives 1 inner ranks; 3 cores have 2"),
        (lambda: check_ranks([2], 3, closed=True), "gives 1 ranks; 3 cores have 3"),
        (lambda: check_ranks([2, -1], 3), "whole numbers of at least 1"),
        (lambda: check_ranks(None, 3), "rank is None"),
    ],
)
def test_errors_say_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("shape", "rank", "expected"),
    [
        ((8, 8, 12), 100, [8, 12]),
        ((8, 8, 12), 5, [5, 5]),
        (((2, 3), (4, 5)), 100, [8]),
        (((2, 3, 4), (1, 1, 1)), [7, 1], [2, 1]),
        ((7,), 3, []),
    ],
)
def test_useful_ranks_are_those_of_a_random_tensor(shape, rank, expected):
    assert t3nsor.useful_ranks(shape, rank) == expected
    assert t3nsor.useful_ranks((8, 8, 12), 100, ring=True) == [100] * 3
    if rank == 100:
        sizes = [n * m for n, m in zip(*shape, strict=True)] if isinstance(shape[0], tuple) else shape
        exact = t3nsor.to_tt_tensor(torch.randn(tuple(sizes), dtype=torch.float64))
        assert list(exact.ranks[1:-1]) == expected
