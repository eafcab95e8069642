"""Which tensors of a model belong into the file of its adapters, and which a file may replace."""

from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel

from adapters import AdapterPart
from third_party.models.t5.fingerprint import tensor_names
from third_party.models.t5.freezing import freeze_model_params

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

FLOATS = {torch.float32, torch.bfloat16, torch.float16, torch.float64}
INTEGERS = {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool}


def added_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors that adapters added to the model, trained or frozen, by name."""
    names = tensor_names(model)
    parts = [module for module in model.modules() if isinstance(module, AdapterPart)]
    return {names[tensor]: tensor for part in parts for tensor in part.state_dict(keep_vars=True).values()}


def tensors_to_save(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The tensors that cannot be restored from the backbone, by name: all trained ones and all of the adapters."""
    names = tensor_names(model)
    trained = {names[parameter]: parameter for parameter in model.parameters() if parameter.requires_grad}
    return dict(sorted((added_tensors(model) | trained).items()))


def loadable_names(model: "T5ForConditionalGeneration") -> set[str]:
    """The names of the tensors that an adapter may replace: those it adds, and those it trains.

    What counts as trained is what the configuration says or what is trained at present.
    """
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    names = set(tensors_to_save(model))
    try:
        freeze_model_params(model)
        return names | set(tensors_to_save(model))
    finally:
        for parameter, flag in flags.items():
            parameter.requires_grad = flag
