"""Parameter-efficient adapters: configuration, layers and controllers. Depends on torch, t3nsor and common only."""

from adapters.adapted_linear import AdaptedLinear
from adapters.adapter_configuration import AdapterConfig
from adapters.adapter_controller import AdapterController
from adapters.adapter_modeling import Adapter, TensorTrainAdapter, TensorTrainSingleAdapter
from adapters.merged_weight import Branch, MergedWeight
from adapters.merging import is_merged, merge_adapters, remerge, rounding_losses, unmerge_adapters
from adapters.parts import AdapterPart, Place, SharedParts
from adapters.per_task import PerTask, TaskBranches
from adapters.registry import METHODS, build
from adapters.task_switch import TaskSwitch
from adapters.tensor_train_linear import TensorTrainLinear
from common.errors import ConfigError

__all__ = [
    "METHODS",
    "AdaptedLinear",
    "Adapter",
    "AdapterConfig",
    "AdapterController",
    "AdapterPart",
    "Branch",
    "ConfigError",
    "MergedWeight",
    "PerTask",
    "Place",
    "SharedParts",
    "TaskBranches",
    "TaskSwitch",
    "TensorTrainAdapter",
    "TensorTrainLinear",
    "TensorTrainSingleAdapter",
    "build",
    "is_merged",
    "merge_adapters",
    "remerge",
    "rounding_losses",
    "unmerge_adapters",
]
