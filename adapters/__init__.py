"""Parameter-efficient adapters: their configuration, layers and controllers. Needs torch and t3nsor only."""

from adapters.adapter_configuration import AdapterConfig
from adapters.adapter_controller import AdapterController, TaskSwitch
from adapters.adapter_modeling import Adapter, TensorTrainAdapter, TensorTrainSingleAdapter
from adapters.errors import ConfigError, one_line
from adapters.registry import AFTER_SUBLAYER_METHODS, build_adapter
from adapters.tensor_train_linear import TensorTrainLinear

__all__ = [
    "AFTER_SUBLAYER_METHODS",
    "Adapter",
    "AdapterConfig",
    "AdapterController",
    "ConfigError",
    "TaskSwitch",
    "TensorTrainAdapter",
    "TensorTrainLinear",
    "TensorTrainSingleAdapter",
    "build_adapter",
    "one_line",
]
