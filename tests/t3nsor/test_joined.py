"""Matrices of several trains built together are those of each alone, and only built where they are less work."""

import pytest
import torch

from t3nsor import ShapeError
from t3nsor.joined import dense_if_less_work, dense_matrices, is_less_work
from tests.t3nsor.chains import dense_by_entries, random_chain

RANKS = (1, 3, 2, 1)
MODES = [(2, 3), (4, 1), (3, 2)]
TURNED = [(m, n) for n, m in MODES]
T5_BASE = (8, 2), (8, 3), (12, 4)  # 768 -> 24


def leaves(chain):
    return [core.clone().requires_grad_() for core in chain.cores]


def shapes_of(modes, rank):
    ranks = (1, *[rank] * (len(modes) - 1), 1)
    return tuple((ranks[k], *mode, ranks[k + 1]) for k, mode in enumerate(modes))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_values_and_gradients_are_those_of_each_train(d):
    ranks = (*RANKS[:d], 1)
    chains = [random_chain(modes[:d], ranks, closed=False, seed=k) for k, modes in enumerate((MODES, TURNED))]
    together, alone = [[leaves(chain) for chain in chains] for _ in range(2)]
    found = dense_matrices(together)
    expected = [dense_by_entries(type(chain)(cores)) for chain, cores in zip(chains, alone, strict=True)]
    for matrix, other in zip(found, expected, strict=True):
        torch.testing.assert_close(matrix, other)
    weights = [torch.randn_like(matrix) for matrix in expected]
    for matrices in (found, expected):
        sum((matrix * weight).sum() for matrix, weight in zip(matrices, weights, strict=True)).backward()
    for cores, others in zip(together, alone, strict=True):
        for core, other in zip(cores, others, strict=True):
            torch.testing.assert_close(core.grad, other.grad)
            assert core.grad.stride() == core.stride()  # as DistributedDataParallel expects


@pytest.mark.parametrize(
    ("modes", "ranks"), [(MODES[:2], (1, 3, 1)), ([*MODES[:2], (3, 1)], RANKS), (MODES, (1, 2, 2, 1))]
)
def test_trains_that_are_not_alike_are_refused(modes, ranks):
    one, other = random_chain(MODES, RANKS, closed=False), random_chain(modes, ranks, closed=False)
    with pytest.raises(ShapeError, match="the k-th of all need the same ranks"):
        dense_matrices([one.cores, other.cores])
    assert dense_if_less_work([one.cores, other.cores], torch.ones(10_000, 24, dtype=torch.float64)) is None


@pytest.mark.parametrize(
    ("shapes", "rows", "less"),
    [
        (shapes_of(T5_BASE, 8), 512, True),
        (shapes_of(T5_BASE, 8), 64, True),
        (shapes_of(T5_BASE, 1), 512, False),  # core by core takes a sixth of the multiplications
        (shapes_of([(8, 8), (8, 8), (12, 12)], 8), 512, False),
        # 6,144 + 1,536 multiplications for a row from the left; the matrix takes 18,432
        (shapes_of([(24, 4), (32, 6)], 2), 2048, False),
        # 15,360 + 3,840 for a row from the left, and 92,160 once to build the matrix
        (shapes_of([(24, 4), (32, 6)], 5), 512, True),
        (shapes_of([(24, 4), (32, 6)], 5), 32, False),
    ],
)
def test_what_is_less_work(shapes, rows, less):
    assert is_less_work(shapes, rows) == less


@pytest.mark.parametrize(
    ("x_dtype", "core_dtype", "built"),
    [
        (torch.float32, torch.float32, True),
        (torch.bfloat16, torch.float32, True),
        (torch.bfloat16, torch.bfloat16, False),  # each of the products would be rounded
        (torch.float64, torch.float32, False),
    ],
)
def test_dtypes(x_dtype, core_dtype, built):
    cores = random_chain(T5_BASE, (1, 8, 8, 1), closed=False).to(core_dtype).cores
    found = dense_if_less_work([cores], torch.ones(512, 768, dtype=x_dtype))
    assert (found is not None) == built
    assert found is None or found[0].dtype == core_dtype


def test_parts_of_cores_are_left_to_the_engine():
    class Part(torch.Tensor):
        """As DTensor is, of which a process holds a part."""

    cores = [core.float() for core in random_chain(T5_BASE, (1, 8, 8, 1), closed=False).cores]
    x = torch.ones(512, 768)
    assert dense_if_less_work([cores], x) is not None
    assert dense_if_less_work([[cores[0].as_subclass(Part), *cores[1:]]], x) is None
