"""Tensor trains in PyTorch: objects, initialisers, decompositions and layers. Needs torch only."""

from t3nsor.decompositions import to_tt_matrix
from t3nsor.errors import ShapeError
from t3nsor.initializers import glorot_initializer, matrix_with_random_cores, random_matrix
from t3nsor.layers import TTLinear
from t3nsor.ops import tt_matmul
from t3nsor.shapes import auto_shape
from t3nsor.tensor_train import TensorTrain

__all__ = [
    "ShapeError",
    "TTLinear",
    "TensorTrain",
    "auto_shape",
    "glorot_initializer",
    "matrix_with_random_cores",
    "random_matrix",
    "to_tt_matrix",
    "tt_matmul",
]
