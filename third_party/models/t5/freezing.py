"""Selection of the parameters that are trained."""

from typing import TYPE_CHECKING

from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import AdapterConfig, AdapterPart
from third_party.models.t5.trained_modules import keep_trained_weights_in_float32

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


def freeze_model_params(model: "T5ForConditionalGeneration") -> None:
    """Set `requires_grad` of every parameter as the model's adapter configuration says; call it once.

    Adapter parameters that were built with `requires_grad` false stay frozen. What is trained becomes float32 if it is
    in half precision.
    """
    config = model.adapter_config
    if config is None:
        return
    if config.freeze_backbone:
        _freeze_backbone(model, config)
    else:
        model.shared.weight.requires_grad = not config.freeze_embedding
    keep_trained_weights_in_float32(model)


def _freeze_backbone(model: "T5ForConditionalGeneration", config: AdapterConfig) -> None:
    trained: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, AdapterPart):
            trained.update(p for p in module.parameters() if p.requires_grad)
        elif config.unfreeze_layer_norms and isinstance(module, T5LayerNorm):
            trained.update(module.parameters())
    head_in_bitfit = config.bitfit and not config.freeze_bitfit_lm_head
    if config.unfreeze_lm_head or head_in_bitfit:
        trained.update(model.lm_head.parameters())
    for parameter in model.parameters():
        parameter.requires_grad = parameter in trained
