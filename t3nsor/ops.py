"""x @ W for a TT-matrix W: two contraction plans and the rule that chooses between them."""

import math

import torch

from t3nsor.errors import ShapeError
from t3nsor.tensor_train import TensorTrain

STRATEGIES = ("auto", "left_to_right", "full")


def tt_matmul(x: torch.Tensor, tt: TensorTrain, strategy: str = "auto") -> torch.Tensor:
    """Multiply `x` by the matrix that `tt` stands for.

    x: (.., in_features); returns (.., out_features). strategy: "left_to_right" contracts one core after the other,
    "full" builds the dense matrix first, "auto" takes the plan with fewer multiplications.
    """
    if strategy not in STRATEGIES:
        raise ShapeError(f"tt_matmul: strategy is {strategy!r}; allowed: {', '.join(STRATEGIES)}")
    in_features, out_features = tt.shape
    if x.shape[-1:] != (in_features,):
        raise ShapeError(f"tt_matmul: x has shape {tuple(x.shape)}; its last dimension must be {in_features}")
    if strategy == "auto":
        strategy = choose_strategy(tt, rows=x.numel() // in_features)
    if strategy == "full":
        return x @ tt.full().to(x.dtype)
    flat = _left_to_right(x.reshape(-1, in_features), tt)
    return flat.reshape(*x.shape[:-1], out_features)


def choose_strategy(tt: TensorTrain, rows: int) -> str:
    """The plan with fewer multiplications for an input of `rows` rows."""
    (inputs, outputs), ranks = tt.raw_shape, tt.ranks
    chain, dense = 0, rows * math.prod(tt.shape)
    for k in range(len(tt.cores)):
        core = ranks[k] * inputs[k] * outputs[k] * ranks[k + 1]
        chain += rows * core * math.prod(inputs[k + 1 :]) * math.prod(outputs[:k])
        if k > 0:
            dense += core * math.prod(inputs[:k]) * math.prod(outputs[:k])
    return "full" if dense <= chain else "left_to_right"


def _left_to_right(x: torch.Tensor, tt: TensorTrain) -> torch.Tensor:
    """x: (rows, in_features) -> (rows, out_features).

    The state has the axes (rows, r_{k-1} * n_k, n_{k+1} .. n_d m_1 .. m_{k-1}); each step turns n_k into m_k and moves
    it behind the others.
    """
    rows, width = x.shape
    state = x
    for core in tt.cores:
        left, n, m, right = core.shape
        rest = width // (left * n)
        matrix = core.to(x.dtype).permute(2, 3, 0, 1).reshape(m * right, left * n)
        state = torch.matmul(matrix, state.reshape(rows, left * n, rest))
        state = state.reshape(rows, m, right, rest).movedim(1, -1)
        width = right * rest * m
    return state.reshape(rows, width)
