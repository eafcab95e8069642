"""The sites where methods attach to T5. Each site takes one method; different sites can have different ones."""

AFTER_SUBLAYER = "after a sublayer"
BESIDE_LINEAR = "beside a linear layer"
INSTEAD_OF_NORM = "instead of a layer norm"
ON_BIAS = "on a bias"
BEFORE_ENCODER = "before the encoder"
IN_ATTENTION = "in the attention"
ON_WEIGHTS = "on all weights"

LINEARS = ("wi", "wo", "q", "k", "v", "o")  # the linear layers that can have a branch, by their names in T5
