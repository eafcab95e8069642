"""Adapters in peft's format: `adapter_config.json` and `adapter_model.safetensors`, written and read without peft."""

from third_party.models.t5.peft_format.exporting import export
from third_party.models.t5.peft_format.importing import check_same, read

__all__ = ["check_same", "export", "read"]
