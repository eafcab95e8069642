"""What stands between a configuration and a trainable model: reading, attaching, freezing, counting."""

from collections.abc import Mapping, Sequence

import torch
from transformers.models.t5.modeling_t5 import T5LayerNorm

from adapters import AdapterConfig, AdapterController, ConfigError
from third_party.models.t5 import T5ForConditionalGeneration


def get_adapter_config(settings: Mapping, tasks: Sequence[str] = ("task",)) -> AdapterConfig:
    """Pick the adapter keys out of `settings`; each of `tasks` gets adapters of its own."""
    return AdapterConfig(
        tasks=tuple(tasks), **{name: settings[name] for name in AdapterConfig.key_names() if name in settings}
    )


def freeze_model_params(model: T5ForConditionalGeneration) -> None:
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
        if isinstance(module, AdapterController):
            trained.update(p for p in module.parameters() if p.requires_grad)
        elif isinstance(module, T5LayerNorm) and config.unfreeze_layer_norms:
            trained.update(module.parameters())
    if config.unfreeze_lm_head:
        trained.update(model.lm_head.parameters())
    for parameter in model.parameters():
        parameter.requires_grad = parameter in trained


def modify_model_after_init(model: T5ForConditionalGeneration, adapter_config: AdapterConfig | None):
    """Attach adapters to a loaded backbone, then freeze: the two steps that follow loading. Returns the model.

    A model that was loaded with adapters keeps them; ConfigError if `adapter_config` asks for others.
    """
    if adapter_config is not None and model.adapter_config is None:
        model.attach_adapters(adapter_config)
    elif adapter_config is not None:
        here, asked = model.adapter_config.to_dict(), adapter_config.to_dict()
        wrong = [f"{name} is {asked[name]!r}, there {here[name]!r}" for name in here if here[name] != asked[name]]
        if wrong:
            raise ConfigError(f"model_name_or_path names a run with other adapters: {'; '.join(wrong)}")
    freeze_model_params(model)
    return model


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Number of parameters: "trainable", "total", and "backbone" (all but the adapters'); tied ones count once."""
    in_adapters = {p for m in model.modules() if isinstance(m, AdapterController) for p in m.parameters()}
    parameters = list(model.parameters())
    return {
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "total": sum(p.numel() for p in parameters),
        "backbone": sum(p.numel() for p in parameters if p not in in_adapters),
    }
