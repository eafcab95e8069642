"""Tiny random models of seven architectures, with inputs, and the methods that the tests run them with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from torch import nn

from t3nsor_peft import MetaTTConfig, TTAdapterConfig, TTLoraConfig

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
TOKENS = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@dataclass(frozen=True)
class Architecture:
    """How to build a model, what to call it with, and what to adapt."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, torch.Tensor]]
    targets: str | list[str] = "all-linear"
    options: dict[str, Any] = field(default_factory=dict)

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.build().eval()


def ids(rows: int = 3, length: int = 7) -> dict[str, torch.Tensor]:
    tokens = torch.randint(3, 64, (rows, length), generator=torch.Generator().manual_seed(1))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def pair() -> dict[str, torch.Tensor]:
    return ids() | {"decoder_input_ids": ids(length=4)["input_ids"]}


def llama() -> nn.Module:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SIZES, **TOKENS, num_key_value_heads=2))


def qwen2() -> nn.Module:
    config = transformers.Qwen2Config(**SIZES, **TOKENS, num_key_value_heads=2, tie_word_embeddings=True)
    return transformers.Qwen2ForCausalLM(config)


def bert() -> nn.Module:
    config = transformers.BertConfig(**SIZES, vocab_size=64, pad_token_id=0, num_labels=3)
    return transformers.BertForSequenceClassification(config)


def t5() -> nn.Module:
    sizes = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 2}
    config = transformers.T5Config(**sizes, vocab_size=64, decoder_start_token_id=0)
    return transformers.T5ForConditionalGeneration(config)


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=32, **TOKENS)
    return transformers.GPT2LMHeadModel(config)


def vit() -> nn.Module:
    config = transformers.ViTConfig(**SIZES, image_size=16, patch_size=8, num_labels=3)
    return transformers.ViTForImageClassification(config)


def whisper() -> nn.Module:
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_mel_bins": 8, "max_source_positions": 16}
    tokens = {**TOKENS, "decoder_start_token_id": 1, "begin_suppress_tokens": [3], "suppress_tokens": None}
    config = transformers.WhisperConfig(**layers, **sizes, **tokens, max_target_positions=16)
    return transformers.WhisperForConditionalGeneration(config)


def sound() -> dict[str, torch.Tensor]:
    features = torch.randn(3, 8, 32, generator=torch.Generator().manual_seed(1))
    return {"input_features": features, "decoder_input_ids": ids(length=4)["input_ids"]}


def pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))}


ARCHITECTURES = {
    "llama": Architecture(llama, ids),
    "qwen2": Architecture(qwen2, ids),
    "bert": Architecture(bert, ids, options={"task_type": "SEQ_CLS"}),
    "t5": Architecture(t5, pair),
    "gpt2": Architecture(gpt2, ids),
    "vit": Architecture(vit, pixels, ["q_proj", "k_proj", "v_proj", "fc1", "fc2"], {"modules_to_save": ["classifier"]}),
    "whisper": Architecture(whisper, sound),
}
METHODS = {
    "tt_lora": (TTLoraConfig, {}),
    "tt_lora skewed": (TTLoraConfig, {"auto_shape_mode": "skewed", "use_rslora": True}),
    "tt_lora ring": (TTLoraConfig, {"ring": True, "d": 3, "r": 2}),
    "tt_lora svd": (TTLoraConfig, {"init_weights": "svd", "r": 3}),
    "tt_lora frozen": (TTLoraConfig, {"freeze_cores": "first", "d": 3}),
    "meta_tt": (MetaTTConfig, {"r": 3}),
    "tt_adapter": (TTAdapterConfig, {"reduction_factor": 4}),
}
MERGEABLE = [name for name in METHODS if name != "tt_adapter"]


def config_of(method: str, architecture: Architecture, **changes: Any):
    """The configuration of a method for all linear layers of a model."""
    cls, fields = METHODS[method]
    return cls(**{"r": 4, "target_modules": architecture.targets} | fields | architecture.options | changes)


@torch.no_grad()
def perturb(model: nn.Module, seed: int = 0) -> None:
    """Change all that is trained, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.1 * noise.to(parameter.dtype))


def logits(model: nn.Module, inputs: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs, **options).logits
