"""Checks of a model that was just adapted: every chosen method found something to adapt, and something is trained."""

from typing import TYPE_CHECKING

from adapters import METHODS, AdapterConfig
from adapters.sites import AFTER_SUBLAYER, BESIDE_LINEAR
from common.errors import ConfigError, warn_once
from third_party.models.t5.configuration_t5 import T5Config

if TYPE_CHECKING:  # modeling_t5 imports this module
    from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

LAYER_KEYS = ("task_adapter_layers_encoder", "task_adapter_layers_decoder", "task_adapter_in_decoder")


def check_attached(model: "T5ForConditionalGeneration") -> None:
    """Raise ConfigError if a method was attached nowhere, or if nothing is trained; it names the keys that say so.

    Only a warning if the keys name layers of a deeper model, as a published file may, and other keys train something.
    """
    config = model.adapter_config
    assert config is not None
    trains = any(parameter.requires_grad for parameter in model.parameters())
    for site, method in config.methods.items():
        if any(isinstance(module, METHODS[method].cls) for module in model.modules()):
            continue
        keys = ", ".join(f"{key} is {getattr(config, key)!r}" for key in _selecting(config, model.config, site))
        text = f"{method} has nothing to adapt in this model: {keys}"
        decoder = config.task_adapter_layers_decoder if config.task_adapter_in_decoder else None
        if not trains or not (config.task_adapter_layers_encoder or decoder):
            raise ConfigError(f"{text}; change it")
        warn_once(f"{text}; only what other keys name is trained")
    if config.method is not None and not trains:
        frozen = [key for key in ("freeze_norms", "freeze_cores", "learn_phm", "freeze_backbone") if config.is_set(key)]
        raise ConfigError(
            f"{config.method} trains no parameter with {', '.join(frozen)} as they are; change one of them, or set "
            "unfreeze_layer_norms or unfreeze_lm_head to true"
        )


def _selecting(config: AdapterConfig, backbone: T5Config, site: str) -> tuple[str, ...]:
    """The keys by which a method that was attached nowhere chose its places."""
    if site not in (AFTER_SUBLAYER, BESIDE_LINEAR) or not any(backbone.adapted_blocks(config)):
        return LAYER_KEYS
    if site == AFTER_SUBLAYER:
        return ("add_adapter_in_self_attention", "add_adapter_in_feed_forward")
    return ("lora_targets",)
