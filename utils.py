"""The functions that scripts use to configure and adapt a model, re-exported from the modules that define them."""

from adapters.adapter_configuration import get_adapter_config
from third_party.models.t5.adapting import modify_model_after_init
from third_party.models.t5.freezing import freeze_model_params

__all__ = ["freeze_model_params", "get_adapter_config", "modify_model_after_init"]
