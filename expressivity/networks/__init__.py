"""Built-in architectures, by the names used in configuration files."""

from expressivity.networks.deep import DeepNetwork
from expressivity.networks.score import TensorTrainScore
from expressivity.networks.transformer import Transformer

ARCHITECTURES = {"deep_network": DeepNetwork, "transformer": Transformer, "tensor_train_score": TensorTrainScore}

__all__ = ["ARCHITECTURES", "DeepNetwork", "TensorTrainScore", "Transformer"]
