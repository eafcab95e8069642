import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import t3nsor
from t3nsor import initializers as init
from t3nsor.errors import ShapeError
from t3nsor.tensor_train import TensorRing, TensorTrain

MATRIX, TENSOR = ((4, 6, 2), (3, 2, 5)), (4, 6, 5)
# name -> (initialiser, a shape for it), for every initialiser but `from_matrix`.
EVERY = {
    "matrix_with_random_cores": (init.matrix_with_random_cores, MATRIX),
    "random_matrix": (init.random_matrix, MATRIX),
    "glorot_initializer": (init.glorot_initializer, MATRIX),
    "kaiming": (init.kaiming, MATRIX),
    "const_initializer": (init.const_initializer, MATRIX),
    "zeros": (init.zeros, MATRIX),
    "eye": (init.eye, ((4, 6, 2), (4, 6, 2))),
    "zero_delta": (init.zero_delta, MATRIX),
    "tensor_with_random_cores": (init.tensor_with_random_cores, TENSOR),
    "random_tensor": (init.random_tensor, TENSOR),
    "tensor_const": (init.tensor_const, TENSOR),
    "tensor_zeros": (init.tensor_zeros, TENSOR),
}


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("name", EVERY)
def test_every_initialiser_takes_the_same_options(name, ring):
    function, shape = EVERY[name]
    ranks = [2, 3, 4] if ring else [3, 4]
    generator = torch.Generator().manual_seed(0)
    chain = function(shape, ranks, ring=ring, dtype=torch.float64, device="cpu", generator=generator)
    assert type(chain) is (TensorRing if ring else TensorTrain)
    assert chain.ranks == ((2, 3, 4, 2) if ring else (1, 3, 4, 1))
    assert chain.raw_shape == (shape if isinstance(shape[0], tuple) else (shape,))
    assert chain.dtype == torch.float64
    again = function(shape, ranks, ring=ring, dtype=torch.float64, generator=generator.manual_seed(0))
    assert torch.equal(chain.full(), again.full())
    assert function(shape, 2, ring=ring, device="meta").device.type == "meta"
    assert not list(chain.parameters())
    if "zeros" not in name:
        trainable = function(shape, 2, ring=ring, trainable=True, freeze_cores=[1])
        assert [core.requires_grad for core in trainable.cores] == [True, False, True]


@pytest.mark.parametrize(("ring", "rank"), [(False, 8), (False, [2, 5]), (True, 3), (True, [2, 5, 3])])
def test_random_matrices_have_the_variance_asked_for(ring, rank):
    """Measured over many draws: the entries of one draw are far from independent."""
    generator = torch.Generator().manual_seed(0)

    def deviation(function, shape, *arguments):
        draws = [function(shape, rank, *arguments, ring=ring, generator=generator).full() for _ in range(400)]
        return torch.stack(draws).std().item()

    shape = ((4, 8, 4), (4, 3, 4))
    assert deviation(init.random_matrix, shape, 0.5) == pytest.approx(0.5, rel=0.1)
    assert deviation(init.random_tensor, (12, 8, 16), 2.0) == pytest.approx(2.0, rel=0.1)
    assert deviation(init.glorot_initializer, shape) == pytest.approx(math.sqrt(2 / (128 + 48)), rel=0.1)
    assert deviation(init.kaiming, shape) == pytest.approx(math.sqrt(2 / 128), rel=0.1)


def test_random_cores_have_their_own_deviation():
    chain = init.matrix_with_random_cores(((64, 64), (32, 32)), 8, std=0.3)
    assert all(core.std().item() == pytest.approx(0.3, rel=0.05) for core in chain.cores)
    assert not init.tensor_with_random_cores((3, 3), 2, std=0.0).full().any()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    rank=st.integers(1, 4),
    value=st.sampled_from([1.0, -3.5, 0.0, 0.1, 1e-3]),
    symmetric=st.booleans(),
    ring=st.booleans(),
)
def test_constant_chains_hold_the_constant_everywhere(rows, rank, value, symmetric, ring):
    options = {"value": value, "symmetric": symmetric, "ring": ring, "dtype": torch.float64}
    matrix = init.const_initializer((rows, rows[::-1]), rank, **options).full()
    tensor = init.tensor_const(rows, rank, **options).full()
    for dense in (matrix, tensor):
        expected = torch.full_like(dense, value)
        assert torch.allclose(dense, expected, rtol=1e-12) if symmetric else torch.equal(dense, expected)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("ring", [False, True])
def test_identity_and_zeros(ring, rank):
    assert torch.equal(init.eye(((2, 3, 4), (2, 3, 4)), rank, ring=ring).full(), torch.eye(24))
    assert torch.equal(init.eye(((5,), (5,)), rank, ring=ring).full(), torch.eye(5))
    assert not init.zeros(((2, 3), (4, 1)), rank, ring=ring).full().any()
    assert not init.tensor_zeros((2, 3), rank, ring=ring).full().any()


def trained(chain, steps: int = 100):
    """The dense form after fitting a random target."""
    target = torch.randn(chain.shape, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.Adam(chain.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        (chain.full() - target).square().mean().backward()
        optimizer.step()
    return chain.full().detach()


def second_singular_value(dense, first_modes: int) -> float:
    """The second singular value of the unfolding at the first bond, relative to the first."""
    s = torch.linalg.svdvals(dense.reshape(first_modes, -1))
    return (s[1] / s[0]).item()


@pytest.mark.parametrize("value", [1.0, -0.5, 0.0])
@pytest.mark.parametrize(("shape", "ring"), [((6, 8), False), ((4, 4, 6), False), ((6, 8), True)])
def test_a_constant_start_uses_its_rank(shape, ring, value):
    generator = torch.Generator().manual_seed(0)
    chain = init.tensor_const(shape, 3, value, ring=ring, trainable=True, generator=generator)
    assert second_singular_value(trained(chain), shape[0]) > 0.05
    if value:
        symmetric = init.tensor_const(shape, 3, value, symmetric=True, ring=ring, trainable=True)
        if not ring:
            assert second_singular_value(trained(symmetric), shape[0]) < 1e-4


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("zero", ["last", "first"])
def test_a_zero_delta_is_zero_and_can_be_left(zero, ring):
    chain = init.zero_delta(((4, 3), (3, 4)), 2, zero=zero, ring=ring, trainable=True)
    assert [bool(core.any()) for core in chain.cores] == ([True, False] if zero == "last" else [False, True])
    assert not chain.full().any()
    assert trained(chain, steps=5).any()
    wide = init.zero_delta(((32, 32), (32, 32)), 4, std=0.5, zero=zero, ring=ring)
    assert wide.cores[0 if zero == "last" else 1].std().item() == pytest.approx(
        math.sqrt(0.5) * (16 if ring else 4) ** -0.25, rel=0.1
    )


@pytest.mark.parametrize("ring", [False, True])
def test_from_a_given_matrix(ring):
    matrix = torch.randn(6, 8, dtype=torch.float64)
    chain = init.from_matrix(matrix, ((2, 3), (4, 2)), ring=ring, trainable=True, freeze_cores="first")
    assert torch.allclose(chain.full(), matrix)
    assert [core.requires_grad for core in chain.cores] == [False, True]
    assert max(init.from_matrix(matrix, ((2, 3), (4, 2)), rank=2, ring=ring).ranks) == 2
    rough = init.from_matrix(matrix, ((2, 3), (4, 2)), epsilon=0.5, ring=ring, dtype=torch.float32)
    assert rough.dtype == torch.float32
    assert 0 < (rough.full() - matrix).norm() <= 0.5 * matrix.norm()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: init.random_matrix((4, 4), 2), "must be [[in factors], [out factors]]"),
        (lambda: init.random_tensor(((2, 2), (2, 2)), 2), "holds (2, 2)"),
        (lambda: init.random_tensor((2, 0), 2), "shape [2, 0] holds 0"),
        (lambda: init.random_tensor((), 2), "shape is empty"),
        (lambda: init.random_tensor(4, 2), "shape is 4"),
        (lambda: init.random_matrix(MATRIX, [2]), "gives 1 inner ranks; 3 cores have 2"),
        (lambda: init.random_matrix(MATRIX, [2, 2], ring=True), "gives 2 ranks; 3 cores have 3"),
        (lambda: init.random_matrix(MATRIX, 2, std=-1.0), "std is -1.0"),
        (lambda: init.matrix_with_random_cores(MATRIX, 2, std=math.nan), "std is nan"),
        (lambda: init.zero_delta(MATRIX, 2, std=-1.0), "std is -1.0"),
        (lambda: init.random_matrix(MATRIX, 2, dtype=torch.long), "dtype is torch.int64"),
        (lambda: init.const_initializer(MATRIX, 2, value=math.inf), "value is inf"),
        (lambda: init.eye(MATRIX, 2), "n_k = m_k"),
        (lambda: init.zeros(MATRIX, 2, trainable=True), "see zero_delta"),
        (lambda: init.zero_delta(MATRIX, 2, zero="middle"), "zero is 'middle'; allowed: last, first"),
        (lambda: init.zero_delta(MATRIX, 2, zero=3), "zero is 3; allowed: last, first or an index from 0 to 2"),
        (lambda: init.zero_delta(MATRIX, 2, trainable=True, freeze_cores=[2]), "freezes core 2, which is zero"),
        (
            lambda: init.zero_delta(MATRIX, 2, zero="first", trainable=True, freeze_cores=[-3]),
            "freezes core 0, which is zero",
        ),
        (lambda: init.random_matrix(MATRIX, 2, freeze_cores="first"), "but trainable is false"),
        (lambda: init.from_matrix(torch.ones(4, 4), ((2, 2), (2, 3))), "multiply to 6"),
    ],
)
def test_errors_say_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)


@pytest.mark.parametrize("ring", [False, True])
def test_padding_keeps_the_matrix_and_lets_training_use_the_ranks(ring):
    torch.manual_seed(0)
    chain = t3nsor.random_matrix(((2, 3, 2), (2, 2, 3)), rank=2, ring=ring, dtype=torch.float64)
    wide = t3nsor.padded(chain, 4, trainable=True)
    assert set(wide.ranks) == ({4} if ring else {1, 4})
    assert torch.allclose(wide.full(), chain.full())
    target = torch.randn(12, 12, dtype=torch.float64)
    (wide.full() - target).square().sum().backward()
    gradients = torch.cat([core.grad.flatten() for core in wide.cores])
    assert (gradients != 0).sum() >= gradients.numel() / 2  # the others are nonzero after the first step
