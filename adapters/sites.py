"""Where a method attaches to T5. One site carries one method; different sites may carry different ones."""

AFTER_SUBLAYER = "after a sublayer"
BESIDE_LINEAR = "beside a linear layer"
INSTEAD_OF_NORM = "instead of a layer norm"
ON_BIAS = "on a bias"
BEFORE_ENCODER = "before the encoder"
IN_ATTENTION = "in the attention"
ON_WEIGHTS = "on all weights"

LINEARS = ("wi", "wo", "q", "k", "v", "o")  # the linear layers that may carry a branch, as T5 names them
