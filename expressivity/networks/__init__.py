"""Built-in architectures, by the names used in configuration files."""

from expressivity.networks.deep import DeepNetwork
from expressivity.networks.transformer import Transformer

ARCHITECTURES = {"deep_network": DeepNetwork, "transformer": Transformer}

__all__ = ["ARCHITECTURES", "DeepNetwork", "Transformer"]
