"""Operands that do not fit together."""

import pytest
import torch

from t3nsor import Plan, ShapeError, TensorTrain, TRLinear, linear_with_branch, random_matrix, tt_matmul

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


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: tt_matmul(torch.ones(3, 5), TT), "x has shape (3, 5); its last dimension must be 4"),
        (lambda: tt_matmul(torch.tensor(1.0), TT), "x has shape (); its last dimension must be 4"),
        (lambda: tt_matmul(X, TT, "best"), "strategy is 'best'; allowed: auto, measured, left_to_right"),
        (lambda: tt_matmul(X, TT, save="all"), "save is 'all'; allowed: fast, least"),
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
    ],
)
def test_errors_state_what_was_given(call, words):
    with pytest.raises(ShapeError) as error:
        call()
    assert words in str(error.value)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", ["text", "list", "nested"])
def test_what_is_no_dense_tensor_is_not_taken_for_a_missing_one(kind):
    """After a product without a weight and a bias, which is remembered."""
    wrong = {"text": "text", "list": [1.0], "nested": torch.nested.nested_tensor([torch.ones(2, 4)] * 2)}[kind]
    tt_matmul(X, TT)
    for call in (lambda: linear_with_branch(X, wrong, TT), lambda: tt_matmul(X, TT, bias=wrong)):
        with pytest.raises(ShapeError, match="it must be"):
            call()
