"""Built-in architectures, by the names used in configuration files."""

from expressivity.networks.adapted import AdaptedNetwork
from expressivity.networks.deep import DeepNetwork
from expressivity.networks.score import TensorTrainScore
from expressivity.networks.transformer import Transformer

ARCHITECTURES = {
    "adapted_network": AdaptedNetwork,
    "deep_network": DeepNetwork,
    "tensor_train_score": TensorTrainScore,
    "transformer": Transformer,
}

__all__ = ["ARCHITECTURES", "AdaptedNetwork", "DeepNetwork", "TensorTrainScore", "Transformer"]
