"""A tensor-train linear layer whose shape, rank and bias come from the configuration."""

from adapters.adapter_configuration import AdapterConfig
from adapters.errors import ConfigError
from t3nsor import ShapeError, TTLinear, auto_shape, skewed_shape


class TensorTrainLinear(TTLinear):
    """y = x W + b with W a TT-matrix; x: (.., in_features), y: (.., out_features).

    shape: ((n_1, .., n_d), (m_1, .., m_d)), or None to choose it from the `tt_*` keys.
    init: "glorot" or "zero" (W = 0 at the start).
    Raises ConfigError when `shape` does not fit the two sizes.
    """

    def __init__(self, config: AdapterConfig, in_features: int, out_features: int, shape=None, init: str = "glorot"):
        shape = automatic_shape(config, in_features, out_features) if shape is None else shape
        try:
            super().__init__(
                in_features, out_features, rank=config.tt_rank, shape=shape, bias=config.use_bias, init=init
            )
        except ShapeError as error:
            raise ConfigError(f"tt_shape: {error}") from None


def automatic_shape(config: AdapterConfig, in_features: int, out_features: int):
    """The factors of both sides as `tt_d`, `auto_shape_mode`, `reverse_out_shape`, `factorize_smaller_dim` say."""
    if config.auto_shape_mode == "skewed":
        return skewed_shape(in_features, out_features)
    smaller = min(in_features, out_features)

    def factors(size: int) -> tuple[int, ...]:
        if size == smaller and in_features != out_features and not config.factorize_smaller_dim:
            return (*(1,) * (config.tt_d - 1), size)
        return auto_shape(size, config.tt_d, mode=config.auto_shape_mode)

    outputs = factors(out_features)
    return factors(in_features), outputs[::-1] if config.reverse_out_shape else outputs
