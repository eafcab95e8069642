"""Which class implements which method; a new method is one line here."""

from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.adapter_modeling import Adapter, TensorTrainAdapter, TensorTrainSingleAdapter
from adapters.low_rank import LowRankAdapter

AFTER_SUBLAYER_METHODS = {
    "adapters": Adapter,
    "low_rank_adapters": LowRankAdapter,
    "tensor_train_adapters": TensorTrainAdapter,
    "tensor_train_single": TensorTrainSingleAdapter,
}


def build_adapter(config: AdapterConfig, d_model: int) -> nn.Module:
    """The adapter (.., d_model) -> (.., d_model) that `config` chooses."""
    return AFTER_SUBLAYER_METHODS[config.method](config, d_model)
