"""A tensor-train linear layer that takes its shape, rank, cores and bias from the configuration."""

from collections.abc import Sequence
from typing import Any

import torch

from adapters.activations import get_activation
from adapters.adapter_configuration import AdapterConfig
from adapters.configuration_checks import check_cores
from adapters.parts import SharedParts, saying_shape_warnings
from common.errors import ConfigError
from t3nsor import ShapeError, TTBias, TTLinear, auto_shape, linear_shape, skewed_shape
from t3nsor.cores import frozen_indices
from t3nsor.layers import passes_zero
from t3nsor.tensor_train import CoreChain

MatrixShape = tuple[Sequence[int], Sequence[int]]


class TensorTrainLinear(TTLinear):
    """y = x W + b with W a tensor train, or a tensor ring if tensor_ring is set.

    x: (.., in_features), y: (.., out_features).
    config: the tt_* keys and those about cores and biases are used.
    in_features, out_features: sizes of the last dimension of x and y.
    shape: ((n_1, .., n_d), (m_1, .., m_d)), or None for an automatic shape.
    init: "glorot", "kaiming", "zero" (W = 0 at the start; "glorot" where activate_last_core rules that out) or a chain
        of cores to start from.
    bias: True for a bias; with use_TTBias it is a tensor train, `tt_bias`.
    shared: holds the cores selected by share_cores; None shares nothing.
    role: layers with the same role and core sizes share these cores.
    Raises ConfigError if `shape` or the core indices do not fit.
    """

    def __init__(
        self,
        config: AdapterConfig,
        in_features: int,
        out_features: int,
        shape: Sequence[Sequence[int]] | None = None,
        init: str | CoreChain = "glorot",
        *,
        bias: bool = True,
        shared: SharedParts | None = None,
        role: str = "",
    ):
        self.ring = config.tensor_ring
        name = config.cores_nonlinearity
        activation = None if name is None else get_activation(name)
        activate_last = activation is not None and config.activate_last_core
        if activation is not None and activate_last and init == "zero" and not passes_zero(activation):
            init = "glorot"
        try:
            shape = automatic_shape(config, in_features, out_features) if shape is None else shape
            check_cores(config, len(shape[0]))
            with saying_shape_warnings("tt_d"):
                super().__init__(
                    in_features,
                    out_features,
                    rank=config.tt_rank,
                    shape=shape,
                    pad=config.tt_shape is None and config.tt_pad,
                    bias=bias and not config.use_TTBias,
                    init=init,
                    freeze_cores=config.freeze_cores,
                    strategy=config.tt_strategy,
                    save=config.tt_save,
                    cores_nonlinearity=activation,
                    activate_last=activate_last,
                    use_checkpointing=activation is not None and config.use_checkpointing,
                )
            if config.share_cores is not None and shared is not None:
                self._share(config, shared, role)
        except ShapeError as error:
            raise ConfigError(f"{'tt_shape' if config.tt_shape else 'tt_d'}: {error}") from None
        self.tt_bias = bias_of(config, out_features) if bias and config.use_TTBias else None

    def forward(self, x: torch.Tensor, matrix: torch.Tensor | None = None) -> torch.Tensor:
        y = super().forward(x, matrix)
        return y if self.tt_bias is None else self.tt_bias(y)

    def _share(self, config: AdapterConfig, shared: SharedParts, role: str) -> None:
        cores = self.weight.cores
        for k in frozen_indices(config.share_cores, self.weight.d, "share_cores"):
            key = "core", role, k, tuple(cores[k].shape)
            cores.register_parameter(str(k), shared.parts.setdefault(key, cores[k]))


def bias_of(config: AdapterConfig, size: int) -> TTBias:
    """Build the bias of use_TTBias, (size,)."""
    with saying_shape_warnings("TTBias_rk"):
        return TTBias(size, rank=config.TTBias_rk, pad=config.tt_pad)


def automatic_shape(config: AdapterConfig, in_features: int, out_features: int) -> MatrixShape:
    """Choose a shape as tt_d, auto_shape_mode, reverse_out_shape, factorize_smaller_dim and tt_pad say."""
    d, mode, pad = config.tt_d, config.auto_shape_mode, config.tt_pad
    if mode == "skewed":
        return skewed_shape(in_features, out_features, pad=pad)
    if isinstance(d, str):
        options: dict[str, Any] = {"mode": mode, "ring": config.tensor_ring, "pad": pad}
        inputs, outputs = linear_shape(in_features, out_features, rank=config.tt_rank, d=d, **options)
        return inputs, outputs[::-1] if config.reverse_out_shape else outputs
    assert d is not None  # AdapterConfig replaces null
    smaller = min(in_features, out_features)

    def factors(size: int) -> tuple[int, ...]:
        if size == smaller and in_features != out_features and not config.factorize_smaller_dim:
            ones = (1,) * (d - 1)
            return (*ones, size) if mode == "ascending" else (size, *ones)
        return auto_shape(size, d, mode=mode, pad=pad)

    outputs = factors(out_features)
    return factors(in_features), outputs[::-1] if config.reverse_out_shape else outputs
