"""Tensor trains and tensor rings in PyTorch: objects, initialisers, decompositions, layers, and an engine that chooses
a fast contraction order. Needs only torch."""

from t3nsor.automatic_shape import linear_shape
from t3nsor.contraction.explain import chosen_plans, explain
from t3nsor.contraction.ops import linear_with_branch, tt_matmul
from t3nsor.contraction.plans import Plan
from t3nsor.decompositions import to_tr_matrix, to_tr_tensor, to_tt_matrix, to_tt_tensor
from t3nsor.embeddings import TREmbedding, TTEmbedding
from t3nsor.errors import ShapeError, ShapeWarning
from t3nsor.initializers import (
    const_initializer,
    eye,
    from_matrix,
    glorot_initializer,
    kaiming,
    matrix_with_random_cores,
    padded,
    random_matrix,
    random_tensor,
    tensor_const,
    tensor_with_random_cores,
    tensor_zeros,
    zero_delta,
    zeros,
)
from t3nsor.layers import TRLinear, TTLinear
from t3nsor.norms import TTBias, TTLayerNorm
from t3nsor.shapes import auto_shape, best_d, max_rank, parameter_count, skewed_shape, suggest_shape, useful_ranks
from t3nsor.tensor_train import TensorRing, TensorTrain

__version__ = "0.2.0"

__all__ = [
    "Plan",
    "ShapeError",
    "ShapeWarning",
    "TRLinear",
    "TREmbedding",
    "TTBias",
    "TTEmbedding",
    "TTLayerNorm",
    "TTLinear",
    "TensorRing",
    "TensorTrain",
    "auto_shape",
    "best_d",
    "chosen_plans",
    "const_initializer",
    "explain",
    "eye",
    "from_matrix",
    "glorot_initializer",
    "kaiming",
    "linear_shape",
    "linear_with_branch",
    "matrix_with_random_cores",
    "max_rank",
    "padded",
    "parameter_count",
    "random_matrix",
    "random_tensor",
    "skewed_shape",
    "suggest_shape",
    "tensor_const",
    "tensor_with_random_cores",
    "tensor_zeros",
    "to_tr_matrix",
    "to_tr_tensor",
    "to_tt_matrix",
    "to_tt_tensor",
    "tt_matmul",
    "useful_ranks",
    "zero_delta",
    "zeros",
]
