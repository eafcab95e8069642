"""Modules of the backbone whose weight is trained: it is float32, and rounded where it is used.

T5's modules become these by their class, so that names, state-dict keys, hooks and ties stay as they are.
"""

import torch
from torch import nn
from torch.nn import functional
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import AdaptedLinear
from adapters.norms import rms_norm
from adapters.precision import Float32Tensors, trained_dtype


class TrainedLinear(Float32Tensors, nn.Linear):
    """nn.Linear that computes in the backbone's dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = self.compute_dtype
        if x.dtype.itemsize > dtype.itemsize:  # T5 casts the input of `wo` to the dtype of its weight
            x = x.to(dtype)
        return functional.linear(x, self.weight.to(dtype), self.bias if self.bias is None else self.bias.to(dtype))


class TrainedAdaptedLinear(Float32Tensors, AdaptedLinear):
    """AdaptedLinear that computes in the backbone's dtype."""


class TrainedEmbedding(Float32Tensors, nn.Embedding):
    """nn.Embedding whose rows are rounded after they are looked up."""

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return super().forward(index).to(self.compute_dtype)


class TrainedNorm(Float32Tensors, T5LayerNorm):
    """T5LayerNorm that computes in the backbone's dtype."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self.weight.to(self.compute_dtype), self.variance_epsilon)


TRAINED: dict[type[nn.Module], type[Float32Tensors]] = {
    nn.Linear: TrainedLinear,
    AdaptedLinear: TrainedAdaptedLinear,
    nn.Embedding: TrainedEmbedding,
    T5LayerNorm: TrainedNorm,
}


def keep_trained_weights_in_float32(model: nn.Module) -> None:
    """Keep the weights of the backbone that require gradients in float32, now and when the model is converted."""
    trained = [m for m in model.modules() if type(m) in TRAINED and m.weight.requires_grad]
    for module in trained:
        module.__class__ = TRAINED[type(module)]
        module.track_precision(module.weight)
    # Modules may share a weight, so none was changed before all had seen its dtype.
    for module in trained:
        module.weight.data = module.weight.data.to(trained_dtype(module.weight.dtype))


def round_trained_weights(model: nn.Module) -> None:
    """Undo `keep_trained_weights_in_float32`: weights get the backbone's dtype, to which they were rounded in use."""
    plain = {trained: cls for cls, trained in TRAINED.items()}
    for module in [m for m in model.modules() if type(m) in plain]:
        module.weight.data = module.weight.data.to(module.compute_dtype)
        del module.precision
        module.__class__ = plain[type(module)]
