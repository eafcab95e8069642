import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from t3nsor.cores import close_cores, merge_cores
from t3nsor.errors import ShapeError
from t3nsor.tensor_train import TensorRing, TensorTrain
from tests.t3nsor.chains import assert_same_gradients, chains, dense_by_entries, random_chain


def ones(*sizes):
    return [torch.ones(size) for size in sizes]


@settings(max_examples=60, deadline=None)
@given(chains())
def test_full_is_the_product_of_core_slices(chain):
    for core in chain.cores:
        core.requires_grad_()
    assert_same_gradients(chain.full(), dense_by_entries(chain), chain)


@settings(max_examples=30, deadline=None)
@given(chains(), st.data())
def test_merged_cores_make_the_same_chain(chain, data):
    start = data.draw(st.integers(0, chain.d - 1))
    stop = data.draw(st.integers(start + 1, chain.d))
    cores = list(chain.cores)
    merged = merge_cores(cores[start:stop])
    assert merged.dim() == cores[0].dim()
    again = type(chain)([*cores[:start], merged, *cores[stop:]])
    assert torch.allclose(again.full().reshape(chain.shape), chain.full())


def test_cores_with_batch_dimensions_are_closed_one_by_one():
    cores = [
        torch.randn(5, r, n, m, s, dtype=torch.float64) for r, n, m, s in ((2, 3, 1, 4), (4, 2, 2, 1), (1, 1, 3, 2))
    ]
    dense = close_cores(cores)
    assert dense.shape == (5, 6, 6)
    for k in range(5):
        assert torch.allclose(dense[k], TensorRing([core[k] for core in cores]).full())


@settings(max_examples=40, deadline=None)
@given(chains(), st.lists(st.integers(0, 10**6), max_size=4), st.booleans())
def test_gathered_rows_are_rows_of_the_dense_table(chain, numbers, nested):
    for core in chain.cores:
        core.requires_grad_()
    dense = chain.full() if chain.is_matrix else chain.full().flatten()
    index = torch.tensor([number % len(dense) for number in numbers], dtype=torch.long)
    index = index.reshape(1, -1, 1) if nested else index
    assert chain.gather_rows(index).shape == (*index.shape, *dense.shape[1:])
    assert_same_gradients(chain.gather_rows(index), dense[index], chain)


def test_rows_are_gathered_for_any_integers_without_the_table():
    """The dense table has 10^18 entries."""
    chain = random_chain([(1000, 1000)] * 3, (1, 2, 2, 1), closed=False)
    cores = [core[:, :, :4] for core in chain.cores]
    row = TensorTrain([cores[0][:, 7:8], cores[1][:, 250:251], cores[2][:, 999:]]).full()[0]
    assert torch.allclose(TensorTrain(cores).gather_rows(torch.tensor(7_250_999)), row)
    small = random_chain([(20,), (20,)], (1, 2, 1), closed=False)
    assert torch.equal(small.gather_rows(torch.tensor([255], dtype=torch.uint8)), small.full().flatten()[255:256])
    assert torch.equal(small.gather_rows([3, 255]), small.full().flatten()[[3, 255]])


def test_out_of_range_rows_are_not_checked_where_that_would_need_their_values():
    chain = random_chain([(2, 3), (2, 3)], (1, 2, 1), closed=False)
    compiled = torch.compile(chain.gather_rows, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(torch.tensor([3])), chain.full()[3:])
    assert chain.to("meta").gather_rows(torch.tensor([9], device="meta")).shape == (1, 9)


@settings(max_examples=20, deadline=None)
@given(chains(matrix=True))
def test_transpose_is_the_transposed_matrix(chain):
    assert torch.allclose(chain.T.full(), chain.full().T)
    assert chain.transpose().raw_shape == chain.raw_shape[::-1]


def test_a_trainable_chain_is_a_module_of_parameters():
    value = random_chain([(2, 3), (4, 1)], (3, 2, 3), closed=True)
    chain = TensorRing(value.cores, trainable=True, freeze_cores=[-1])
    assert list(chain.state_dict()) == ["cores.0", "cores.1"]
    assert [core.requires_grad for core in chain.cores] == [True, False]
    chain.full().square().sum().backward()
    assert chain.cores[0].grad is not None
    assert chain.cores[-1].grad is None
    with torch.no_grad():
        chain.cores[0].zero_()
    assert value.full().any(), "a trainable chain has cores of its own"


def test_parameters_are_kept_so_that_chains_can_share_them():
    shared = nn.Parameter(torch.randn(1, 2, 3))
    first, second = (TensorTrain([shared, torch.randn(3, 2, 1)], trainable=True) for _ in range(2))
    assert first.cores[0] is shared
    assert second.cores[0] is shared
    assert TensorTrain([shared, torch.randn(3, 2, 1)]).cores[0] is shared


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda chain: pickle.loads(pickle.dumps(chain))])
@pytest.mark.parametrize("trainable", [False, True])
def test_chains_are_copied_converted_and_loaded(copied, trainable):
    chain = TensorRing(random_chain([(2,), (3,)], (2, 2, 2), closed=True).cores, trainable=trainable)
    again = copied(chain)
    assert torch.equal(again.full(), chain.full())
    assert again.trainable == trainable
    again.float()
    assert again.dtype == torch.float32
    assert {core.dtype for core in again.cores} == {torch.float32}
    again.double().load_state_dict({name: core * 2 for name, core in chain.state_dict().items()})
    assert torch.allclose(again.full(), chain.full() * 4)


def test_a_chain_describes_itself():
    chain = random_chain([(2, 3), (4, 5)], (1, 3, 1), closed=False)
    assert (chain.d, chain.ranks, chain.raw_shape, chain.shape) == (2, (1, 3, 1), ((2, 4), (3, 5)), (8, 15))
    assert (chain.numel(), chain.is_matrix, chain.dtype, chain.device.type) == (78, True, torch.float64, "cpu")
    tensor = random_chain([(2,), (4,)], (3, 3, 3), closed=True)
    assert (tensor.d, tensor.ranks, tensor.raw_shape, tensor.shape) == (2, (3, 3, 3), ((2, 4),), (2, 4))
    assert len(tensor.cores) == len(list(tensor.cores)) == 2
    assert tensor.cores[-1] is tensor.cores[1] is tensor.cores[1:][0]
    with pytest.raises(IndexError):
        tensor.cores[2]


def test_repr_states_shapes_ranks_and_compression():
    chain = random_chain([(8, 2), (8, 3), (12, 4)], (1, 4, 4, 1), closed=False)
    shown = "8x8x12 -> 2x3x4, ranks=(1, 4, 4, 1), 640 parameters for 18432 entries, compression 28.8x"
    assert repr(chain) == f"TensorTrain({shown})"
    assert repr(TensorTrain(chain.cores, trainable=True)) == f"TensorTrain({shown}, trainable)"
    frozen = TensorTrain(chain.cores, trainable=True, freeze_cores="first")
    assert repr(frozen) == f"TensorTrain({shown}, trainable, frozen cores [0])"
    assert repr(TensorRing(ones((2, 5, 2)))) == (
        "TensorRing(5, ranks=(2, 2), 20 parameters for 5 entries, compression 0.2x)"
    )


@pytest.mark.parametrize(
    ("freeze_cores", "frozen"), [(None, []), ("first", [0]), ("last", [2]), ([-1, 0], [0, 2]), ((1,), [1]), ([], [])]
)
def test_frozen_cores_are_never_trained(freeze_cores, frozen):
    chain = TensorTrain(ones((1, 2, 2), (2, 2, 2), (2, 2, 1)), trainable=True, freeze_cores=freeze_cores)
    assert [k for k, core in enumerate(chain.cores) if not core.requires_grad] == frozen


def frozen(freeze_cores, trainable=True):
    return TensorTrain(ones((1, 2, 2), (2, 2, 1)), trainable=trainable, freeze_cores=freeze_cores)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: TensorTrain([]), "TensorTrain needs at least one core"),
        (lambda: TensorTrain([1, 2]), "cores must be tensors, got ['int', 'int']"),
        (lambda: TensorTrain(ones((1, 2, 1), (1, 2, 2, 1))), "all need 3 dimensions"),
        (lambda: TensorTrain(ones((1, 2, 0), (0, 2, 1))), "no rank and no size may be 0"),
        (lambda: TensorTrain(ones((2, 2, 2, 2))), "the first and the last rank must be 1"),
        (lambda: TensorTrain(ones((1, 2, 2, 3), (2, 2, 2, 1))), "must be the first rank of the next"),
        (
            lambda: TensorRing(ones((2, 2, 3), (3, 2, 1))),
            "(3, 2, 1)]: the last rank must equal the first, 2",
        ),
        (lambda: TensorTrain([torch.ones(1, 2, 2), torch.ones(2, 2, 1).double()]), "torch.float32, torch.float64"),
        (lambda: TensorTrain([torch.ones(1, 2, 2), torch.ones(2, 2, 1, device="meta")]), "device(type='meta')"),
        (lambda: TensorTrain([torch.ones(1, 2, 1, dtype=torch.long)]), "torch.int64; they must be floating-point"),
        (lambda: frozen("first", trainable=False), "freeze_cores is 'first', but trainable is false"),
        (lambda: frozen("middle"), "freeze_cores is 'middle'; allowed: None, 'first', 'last' or a list of indices"),
        (lambda: frozen(1), "freeze_cores is 1; allowed"),
        (lambda: frozen([0, 2]), "holds 2; 2 cores have the indices -2 to 1"),
        (lambda: frozen([-3]), "holds -3; 2 cores have the indices -2 to 1"),
        (lambda: frozen([True]), "holds True"),
        (lambda: frozen(None).transpose(), "is a tensor"),
        (lambda: frozen(None).gather_rows(torch.tensor([0, 4])), "gather_rows: indices from 0 to 4; allowed: 0 to 3"),
        (lambda: frozen(None).gather_rows(torch.tensor(-1)), "indices from -1 to -1"),
        (lambda: frozen(None).gather_rows(torch.tensor([0.5])), "the index is torch.float32"),
        (lambda: frozen(None).gather_rows(torch.tensor([True])), "the index is torch.bool"),
    ],
)
def test_errors_state_the_shapes(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)
