"""Methods of transformers that would break an adapted model, or put in parts that our saving does not see: refused."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.integrations.peft import PeftAdapterMixin

from adapters import AdapterConfig
from adapters.sites import IN_ATTENTION
from common.errors import ConfigError

ADVICE = (
    "attach adapters with attach_adapters(AdapterConfig(..)), save them with save_adapter and load them with "
    "load_adapter; for adapters of peft, use transformers' own T5ForConditionalGeneration"
)


def _refusal(name: str) -> Callable[..., None]:
    def method(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        raise ConfigError(f"{name} is for adapters of peft, which this class does not support; {ADVICE}")

    method.__name__ = name
    method.__doc__ = "Raise ConfigError: adapters of peft are not supported."
    return method


class Guarded:
    """A base class that refuses, in one line, what an adapted model cannot do.

    Methods for adapters of peft, all that the installed transformers has, are refused without adapters, too: freezing
    and exporting would not see what they add.
    """

    adapter_config: AdapterConfig | None

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, *args: Any, **kwargs: Any
    ) -> torch.nn.Embedding:
        """Resize as transformers does. Raises ConfigError with adapters, unless the size stays the same."""
        if self.adapter_config is not None:
            rows, step = self.get_input_embeddings().weight.shape[0], pad_to_multiple_of or 1
            wanted = rows if new_num_tokens is None else new_num_tokens
            if -(-wanted // step) * step != rows:
                raise ConfigError("the model has adapters; resize the embedding first, then attach them")
            return self.get_input_embeddings()
        return super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, *args, **kwargs)

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        """Replace the embedding as transformers does. Raises ConfigError with adapters."""
        self._check_replaceable("the embedding", value, self.get_input_embeddings())
        super().set_input_embeddings(value)

    def set_output_embeddings(self, new_embeddings: torch.nn.Module) -> None:
        """Replace the output layer as transformers does. Raises ConfigError with adapters."""
        self._check_replaceable("the output layer", new_embeddings, self.get_output_embeddings())
        super().set_output_embeddings(new_embeddings)

    def _check_replaceable(self, name: str, new: torch.nn.Module, present: torch.nn.Module) -> None:
        if self.adapter_config is not None and new is not present:
            raise ConfigError(f"the model has adapters, which were made for this backbone; replace {name} first")

    def set_attn_implementation(self, *args: Any, **kwargs: Any) -> None:
        """Set it as transformers does. Raises ConfigError with attention_prefix_tuning, which others would ignore."""
        if self.adapter_config is not None and IN_ATTENTION in self.adapter_config.methods:
            raise ConfigError(
                "attention_prefix_tuning needs its own attention implementation, which cannot be replaced"
            )
        super().set_attn_implementation(*args, **kwargs)

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save as transformers does. Raises ConfigError with adapters, which `from_pretrained` could not restore."""
        if self.adapter_config is not None and self.adapter_config.method is not None:
            raise ConfigError(
                "the model has adapters; save them with save_adapter, which refers to the backbone by name"
            )
        super().save_pretrained(save_directory, *args, **kwargs)
        if self.adapter_config is not None and self.dtype.itemsize == 2:  # beside trained weights, which are float32
            self.config.dtype = "float32"
            self.config.save_pretrained(save_directory)


for _name, _value in vars(PeftAdapterMixin).items():
    if callable(_value) and not _name.startswith("_"):
        setattr(Guarded, _name, _refusal(_name))


def check_native(model: nn.Module) -> None:
    """Raise ConfigError if a part of the model belongs to peft."""
    for path, module in model.named_modules():
        if type(module).__module__.partition(".")[0] == "peft":
            raise ConfigError(f"{path} is a {type(module).__name__} of peft, which would be lost; {ADVICE}")


def check_plain(model: nn.Module) -> None:
    """Raise ConfigError if a linear layer or a weight is no ordinary one: quantised, offloaded, of another library."""
    check_native(model)
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and type(module) is not nn.Linear:
            raise ConfigError(
                f"{path} is a {type(module).__name__}; adapters need a backbone of ordinary linear layers"
            )
        if getattr(getattr(module, "_hf_hook", None), "offload", False):
            raise ConfigError(f"{path} is offloaded by accelerate; attach adapters first, then offload the model")
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise ConfigError(f"{name} is {parameter.dtype}; adapters need a backbone that is not quantised")
