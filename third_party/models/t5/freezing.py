"""Selection of the parameters that are trained."""

from typing import TYPE_CHECKING

from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import AdapterPart

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration


def freeze_model_params(model: "T5ForConditionalGeneration") -> None:
    """Set `requires_grad` of every parameter as the model's adapter configuration says; call it once.

    Adapter parameters that were built with `requires_grad` false stay frozen.
    """
    config = model.adapter_config
    if config is None:
        return
    if not config.freeze_backbone:
        model.shared.weight.requires_grad = not config.freeze_embedding
        return
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
