"""Which parameters of an adapted model are trained."""

from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import AdapterPart


def freeze_model_params(model) -> None:
    """Set `requires_grad` of every parameter, once, by the model's adapter configuration and the type of its modules.

    Parameters that a layer marked as never trained when it was built (`requires_grad` false in an adapter) stay so.
    """
    config = model.adapter_config
    if config is None:
        return
    if not config.freeze_backbone:
        model.shared.weight.requires_grad = not config.freeze_embedding
        return
    trained = set()
    for module in model.modules():
        if isinstance(module, AdapterPart):
            trained.update(p for p in module.parameters() if p.requires_grad)
        elif isinstance(module, T5LayerNorm) and config.unfreeze_layer_norms:
            trained.update(module.parameters())
    head_in_bitfit = config.bitfit and not config.freeze_bitfit_lm_head
    if config.unfreeze_lm_head or head_in_bitfit:
        trained.update(model.lm_head.parameters())
    for parameter in model.parameters():
        parameter.requires_grad = parameter in trained
