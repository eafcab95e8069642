"""A tensor-train linear layer whose shape, rank, cores and bias come from the configuration."""

import torch

from adapters.activations import get_activation
from adapters.adapter_configuration import AdapterConfig
from adapters.parts import SharedParts
from common.errors import ConfigError
from t3nsor import ShapeError, TTBias, TTLinear, auto_shape, linear_shape, skewed_shape
from t3nsor.cores import frozen_indices


class TensorTrainLinear(TTLinear):
    """y = x W + b with W a TT-matrix, or with tensor_ring a ring; x: (.., in_features), y: (.., out_features).

    shape: ((n_1, .., n_d), (m_1, .., m_d)), or None to choose it from the `tt_*` keys.
    init: "glorot", "kaiming", "zero" (W = 0 at the start) or a tensor train.
    bias: whether there is one; with use_TTBias it is a tensor train, `tt_bias`.
    shared: where the cores that share_cores names are kept; layers with the same `role` and core sizes have them in
        common.
    Raises ConfigError when `shape` or the named cores do not fit.
    """

    def __init__(
        self,
        config: AdapterConfig,
        in_features: int,
        out_features: int,
        shape=None,
        init="glorot",
        *,
        bias: bool = True,
        shared: SharedParts | None = None,
        role: str = "",
    ):
        self.ring = config.tensor_ring
        activation = config.cores_nonlinearity
        try:
            super().__init__(
                in_features,
                out_features,
                rank=config.tt_rank,
                shape=automatic_shape(config, in_features, out_features) if shape is None else shape,
                bias=bias and not config.use_TTBias,
                init=init,
                freeze_cores=config.freeze_cores,
                cores_nonlinearity=None if activation is None else get_activation(activation),
                use_checkpointing=config.use_checkpointing,
            )
            if config.share_cores is not None and shared is not None:
                self._share(config, shared, role)
        except ShapeError as error:
            raise ConfigError(f"tt_shape: {error}" if config.tt_shape else str(error)) from None
        self.tt_bias = TTBias(out_features, rank=config.TTBias_rk) if bias and config.use_TTBias else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = super().forward(x)
        return y if self.tt_bias is None else self.tt_bias(y)

    def _share(self, config: AdapterConfig, shared: SharedParts, role: str) -> None:
        cores = self.weight.cores
        for k in frozen_indices(config.share_cores, self.weight.d, "share_cores"):
            own = cores[k]
            core = shared.get(("core", role, k, tuple(own.shape)), lambda own=own: own)
            cores.register_parameter(str(k), core)


def automatic_shape(config: AdapterConfig, in_features: int, out_features: int):
    """The factors of both sides as `tt_d`, `auto_shape_mode`, `reverse_out_shape`, `factorize_smaller_dim` say."""
    if config.auto_shape_mode == "skewed":
        return skewed_shape(in_features, out_features)
    if isinstance(config.tt_d, str):
        options = {"rank": config.tt_rank, "d": config.tt_d, "ring": config.tensor_ring}
        inputs, outputs = linear_shape(in_features, out_features, mode=config.auto_shape_mode, **options)
        return inputs, outputs[::-1] if config.reverse_out_shape else outputs
    smaller = min(in_features, out_features)

    def factors(size: int) -> tuple[int, ...]:
        if size == smaller and in_features != out_features and not config.factorize_smaller_dim:
            return (*(1,) * (config.tt_d - 1), size)
        return auto_shape(size, config.tt_d, mode=config.auto_shape_mode)

    outputs = factors(out_features)
    return factors(in_features), outputs[::-1] if config.reverse_out_shape else outputs
