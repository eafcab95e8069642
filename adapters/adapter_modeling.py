"""The adapters after a sublayer. Each maps y (.., d_model) to an update that is added to y."""

import torch
from torch import nn
from torch.nn import functional

from adapters.activations import get_activation
from adapters.adapter_configuration import AdapterConfig
from adapters.parts import SharedParts
from adapters.tensor_train_linear import TensorTrainLinear
from t3nsor.joined import dense_if_less_work


class Linear(nn.Linear):
    """nn.Linear that computes in the dtype of x."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Adapter(nn.Module):
    """up(activation(down(y))), the bottleneck of Houlsby et al. 2019 (https://arxiv.org/abs/1902.00751).

    down: d_model -> hidden, up: hidden -> d_model, with hidden = d_model / task_reduction_factor (or
    d_model * task_expansion_factor). Weights are initialised from N(0, 0.01^2) truncated at two standard deviations,
    biases with 0, so the adapted model starts close to the backbone.
    """

    def __init__(self, config: AdapterConfig, d_model: int, shared: SharedParts):
        super().__init__()
        if config.task_expansion_factor is not None:
            hidden = d_model * config.task_expansion_factor
        else:
            hidden = max(1, d_model // config.task_reduction_factor)
        self.down_sampler = self._linear(config, d_model, hidden, shared, "down")
        self.activation = get_activation(config.non_linearity)
        self.up_sampler = self._linear(config, hidden, d_model, shared, "up")

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """y: (.., d_model) -> (.., d_model)."""
        return self.up_sampler(self.activation(self.down_sampler(y)))

    @staticmethod
    def _linear(
        config: AdapterConfig, in_features: int, out_features: int, shared: SharedParts, role: str
    ) -> nn.Module:
        linear = Linear(in_features, out_features, bias=config.use_bias)
        nn.init.trunc_normal_(linear.weight, std=0.01, a=-0.02, b=0.02)
        if config.use_bias:
            nn.init.zeros_(linear.bias)
        return linear


class TensorTrainAdapter(Adapter):
    """up(activation(down(y))) with both matrices tensor trains, or tensor rings if tensor_ring is set.

    down: d_model -> hidden is initialised with Glorot's variance, up: hidden -> d_model with zero (its last core is
    zero), so the adapted model initially equals the backbone. Parameters of a matrix: sum of r_{k-1} n_k m_k r_k, plus
    the bias. Where the dense matrices are less work than core after core, they are built, both together.
    """

    down_sampler: TensorTrainLinear
    up_sampler: TensorTrainLinear

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """y: (.., d_model) -> (.., d_model)."""
        down, up = self._dense(y) or (None, None)
        return self.up_sampler(self.activation(self.down_sampler(y, down)), up)

    def _dense(self, y: torch.Tensor) -> list[torch.Tensor] | None:
        """The matrices of both layers, or None where the engine multiplies by their cores."""
        # The number of rows decides, which a compiled graph or a trace does not fix.
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        layers, rows = (self.down_sampler, self.up_sampler), y.shape[:-1].numel()
        if not all(layer.takes_matrix(rows) and not layer.ring for layer in layers):
            return None
        return dense_if_less_work([layer.weight.cores.forward() for layer in layers], y)

    @staticmethod
    def _linear(
        config: AdapterConfig, in_features: int, out_features: int, shared: SharedParts, role: str
    ) -> nn.Module:
        shape, init = config.tt_shape, "glorot"
        if role == "up":
            shape, init = shape and shape[::-1], "zero"
        return TensorTrainLinear(
            config, in_features, out_features, shape, init, bias=config.use_bias, shared=shared, role=role
        )


class TensorTrainSingleAdapter(nn.Module):
    """sampler(activation(y)) with one TT-matrix d_model -> d_model that is initialised with zero.

    The activation comes first, so the update can have either sign and receives a gradient from the start, whatever the
    activation does at 0.
    """

    def __init__(self, config: AdapterConfig, d_model: int, shared: SharedParts):
        super().__init__()
        self.activation = get_activation(config.non_linearity)
        self.sampler = TensorTrainLinear(
            config, d_model, d_model, config.tt_shape, "zero", bias=config.use_bias, shared=shared, role="single"
        )

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """y: (.., d_model) -> (.., d_model)."""
        return self.sampler(self.activation(y))
