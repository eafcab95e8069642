"""What peft calls our methods, and how it names and shapes their tensors. A further method is one more entry.

Exact both ways, or refused with the key that stands in the way. Not here: attention_prefix_tuning, as peft's prefixes
stand in the decoder's self-attention alone, where they also shift the positions, while ours stand in every attention.
"""

import torch

from adapters import AdapterConfig
from common.errors import ConfigError
from third_party.models.t5.peft_format.method import (
    TARGETS,
    Content,
    PeftMethod,
    Sizes,
    Tensors,
    one_of,
    scale_in,
    scale_out,
    whole,
)
from third_party.models.t5.peft_format.tt_lora import TT_LORA

HARMLESS_INITS = (True, False, "gaussian", None)  # the others change the weights of the backbone or the ranks
# Of every method: where the adapter is from, and what peft does with it.
GENERAL = frozenset({"peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version"}) | {
    "inference_mode",
    "auto_mapping",
}


def _lora_out(config: AdapterConfig) -> Content:
    return scale_out(config, config.lora_rank)


def _lora_in(content: Content, tensors: Tensors) -> Content:
    one_of(content, "init_lora_weights", HARMLESS_INITS)
    return {"use_LoRA": True, "lora_rank": whole(content, "r", 8), **scale_in(content)}


def _ia3_out(config: AdapterConfig) -> Content:
    return {}


def _ia3_in(content: Content, tensors: Tensors) -> Content:
    return {"ia3": True}


def _ia3_layer_keys(config: AdapterConfig, tensors: Tensors, sizes: Sizes, target_modules: list[str]) -> Content:
    return {"feedforward_modules": [name for name in target_modules if name.rpartition(".")[2] == "wo"]}


def _ia3_shape(name: str, tensor: torch.Tensor, towards_peft: bool) -> torch.Tensor:
    """A vector here; in peft a row where it scales inputs (wo), else a column. Layer norms have one shape."""
    if not name.endswith(".ia3_l"):
        return tensor
    row = name.split(".")[-2] == "wo"
    if towards_peft:
        return tensor.unsqueeze(0 if row else 1)
    if tensor.dim() != 2 or tensor.shape[0 if row else 1] != 1:
        kind = "inputs" if row else "outputs"
        raise ConfigError(f"feedforward_modules: {name} is {list(tensor.shape)}, but ia3 scales the {kind} there")
    return tensor.flatten()


def _prompt_out(config: AdapterConfig) -> Content:
    return {"num_virtual_tokens": config.prefix_dim, "num_transformer_submodules": 1, "prompt_tuning_init": "RANDOM"}


def _prompt_in(content: Content, tensors: Tensors) -> Content:
    one_of(content, "task_type", ("SEQ_2_SEQ_LM",))
    return {"prefix_tuning": True, "prefix_dim": whole(content, "num_virtual_tokens")}


METHODS: dict[str, PeftMethod] = {
    "LORA": PeftMethod(
        "use_LoRA",
        _lora_out,
        _lora_in,
        frozenset({"r", "lora_alpha", "lora_dropout", "init_lora_weights", "bias", "use_rslora", "loftq_config"})
        | {"layers_to_transform", "layers_pattern", "megatron_core", "qalora_group_size", "runtime_config"}
        | TARGETS,
        {"branch.A": "lora_A.weight", "branch.B": "lora_B.weight"},
    ),
    "IA3": PeftMethod(
        "ia3",
        _ia3_out,
        _ia3_in,
        frozenset({"feedforward_modules", "init_ia3_weights"}) | TARGETS,
        {"branch.scaling": "ia3_l"},
        _ia3_layer_keys,
        _ia3_shape,
    ),
    "PROMPT_TUNING": PeftMethod(
        "prefix_tuning",
        _prompt_out,
        _prompt_in,
        frozenset({"num_virtual_tokens", "num_transformer_submodules", "token_dim", "num_attention_heads"})
        | {"num_layers", "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs"},
        norms=False,
    ),
    "TT_LORA": TT_LORA,
}


def checked_method(content: Content) -> PeftMethod:
    """The method of peft's keys. Raises ConfigError if it is none of METHODS, or if a key is set that nothing reads."""
    kind = content.get("peft_type")
    if not isinstance(kind, str) or kind not in METHODS:
        raise ConfigError(f"peft_type is {str(kind)[:80]!r}; allowed: {', '.join(METHODS)}")
    method = METHODS[kind]
    for key, value in content.items():
        if key not in GENERAL | method.read and value not in (None, False, "", [], {}):
            raise ConfigError(f"{key} is {str(value)[:80]!r}, which {method.method} does not have; allowed: null")
    one_of(content, "task_type", ("SEQ_2_SEQ_LM", None))
    return method
