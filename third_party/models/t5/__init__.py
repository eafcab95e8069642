"""T5 with adapters: subclasses of the T5 classes of transformers."""

from third_party.models.t5.configuration_t5 import AdapterSite, T5Config
from third_party.models.t5.modeling_t5 import T5ForConditionalGeneration

__all__ = ["AdapterSite", "T5Config", "T5ForConditionalGeneration"]
