import math
from itertools import combinations_with_replacement

import pytest
from hypothesis import given
from hypothesis import strategies as st

from t3nsor import ShapeError, TTLinear, auto_shape
from t3nsor.shapes import check_matrix_shape, check_ranks


def test_published_shapes():
    assert auto_shape(768) == (8, 8, 12)
    assert auto_shape(3072) == (12, 16, 16)
    assert auto_shape(3072, mode="descending") == (16, 16, 12)
    assert auto_shape(3072, mode="mixed") == (12, 16, 16)
    assert auto_shape(2310, 5, mode="mixed") == (2, 11, 3, 7, 5)
    assert auto_shape(257) == (1, 1, 257)


@given(n=st.integers(1, 400), d=st.integers(1, 4), criterion=st.sampled_from(["entropy", "variance"]))
def test_auto_shape_takes_the_best_of_all_factorisations(n, d, criterion):
    divisors = [k for k in range(1, n + 1) if n % k == 0]
    every = [c for c in combinations_with_replacement(divisors, d) if math.prod(c) == n]

    def entropy(factors):
        return -sum(f / sum(factors) * math.log(f / sum(factors)) for f in factors)

    def variance(factors):
        return -sum((f - sum(factors) / d) ** 2 for f in factors)

    score = entropy if criterion == "entropy" else variance
    found = auto_shape(n, d, criterion)
    assert math.prod(found) == n
    assert score(found) == pytest.approx(max(map(score, every)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: auto_shape(0), "n is 0"),
        (lambda: auto_shape(12, 0), "d is 0"),
        (lambda: auto_shape(12, mode="up"), "mode is 'up'; allowed: ascending, descending, mixed"),
        (lambda: auto_shape(12, criterion="size"), "criterion is 'size'"),
        (lambda: check_matrix_shape([[2, 3], [4]]), "2 in and 1 out factors"),
        (lambda: check_matrix_shape([[2, 3], [4, 0]]), "holds 0"),
        (lambda: check_matrix_shape("ab"), "shape"),
        (lambda: check_matrix_shape(5), "must be [[in factors], [out factors]]"),
        (lambda: check_matrix_shape([[2, 3], [4, 5]], 8, 20), "multiply to 6, the input dimension is 8"),
        (lambda: check_ranks(0, 1), "rank is 0"),
        (lambda: check_ranks([2], 3), "gives 1 inner ranks; 3 cores have 2"),
        (lambda: check_ranks([2, -1], 3), "whole numbers of at least 1"),
        (lambda: TTLinear(6, 4, init="ones"), "init is 'ones'"),
        (lambda: TTLinear(6, 4, strategy="fast"), "strategy is 'fast'"),
    ],
)
def test_errors_say_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
