"""Random trains and rings, and their dense form entry by entry."""

import itertools

import torch
from hypothesis import strategies as st

from t3nsor.tensor_train import CoreChain, TensorRing, TensorTrain


def dense_by_entries(chain: CoreChain) -> torch.Tensor:
    """Every entry as the trace of the product of its core slices; differentiable."""
    products = {(): torch.eye(chain.ranks[0], dtype=chain.dtype)}
    for core in chain.cores:
        slices = {mode: core[(slice(None), *mode)] for mode in itertools.product(*map(range, core.shape[1:-1]))}
        products = {
            (*modes, mode): product @ core_slice
            for modes, product in products.items()
            for mode, core_slice in slices.items()
        }
    positions = itertools.product(*(range(n) for side in chain.raw_shape for n in side))
    entries = [products[tuple(position[k :: chain.d] for k in range(chain.d))] for position in positions]
    return torch.stack(entries).diagonal(dim1=1, dim2=2).sum(1).reshape(chain.shape)


def random_chain(modes, ranks, closed: bool, seed: int = 0) -> CoreChain:
    """A chain in float64. modes: (n, m) or (n,) of each core; ranks: (r_0, .., r_d)."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(ranks[k], *mode, ranks[k + 1]) for k, mode in enumerate(modes)]
    cores = [torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes]
    return (TensorRing if closed else TensorTrain)(cores)


@st.composite
def chains(draw, count: int = 1, matrix: bool | None = None, closed: bool | None = None, d_max: int = 4):
    """`count` chains of one kind and shape, each with its own ranks."""
    matrix = draw(st.booleans()) if matrix is None else matrix
    closed = draw(st.booleans()) if closed is None else closed
    modes = draw(st.lists(st.tuples(*[st.integers(1, 3)] * (2 if matrix else 1)), min_size=1, max_size=d_max))
    found = []
    for _ in range(count):
        bonds = draw(st.lists(st.integers(1, 3), min_size=len(modes), max_size=len(modes)))
        ranks = (*bonds, bonds[0]) if closed else (1, *bonds[1:], 1)
        found.append(random_chain(modes, ranks, closed, draw(st.integers(0, 99))))
    return found if count > 1 else found[0]


def assert_same_gradients(result, expected, *sources: CoreChain) -> None:
    """Check that two functions of the cores of `sources` agree in value and in the gradient of a random projection."""
    assert torch.allclose(result, expected)
    weight = torch.randn(expected.shape, dtype=expected.dtype, generator=torch.Generator().manual_seed(0))
    cores = [core for source in sources for core in source.cores]
    got = torch.autograd.grad((result * weight).sum(), cores)
    wanted = torch.autograd.grad((expected * weight).sum(), cores)
    assert all(torch.allclose(a, b) for a, b in zip(got, wanted, strict=True))
