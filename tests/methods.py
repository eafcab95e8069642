"""Every method of the registry, at sizes that fit a tiny model."""

from dataclasses import fields

import torch

from adapters import METHODS, AdaptedLinear, AdapterConfig
from adapters.sites import AFTER_SUBLAYER, BESIDE_LINEAR, INSTEAD_OF_NORM
from third_party.models.t5 import T5Config, T5ForConditionalGeneration
from utils import modify_model_after_init

SMALL = {"task_reduction_factor": 4, "tt_rank": 2, "tt_d": 2, "lora_rank": 2, "intrinsic_dim": 300, "prefix_dim": 5}
FLAGS = {f.metadata.get("method", f.name): f for f in fields(AdapterConfig) if "site" in f.metadata}
BY_NAME = {f.name: f for f in FLAGS.values()}
VALUES = {"tt_basis": 3}  # keys that choose a method by a number
VARIANTS = {
    "use_TTLoRA svd": ("use_TTLoRA", {"TTLoRA_init": "svd"}),
    "use_TTLoRA kaiming": ("use_TTLoRA", {"TTLoRA_init": "kaiming", "tt_d": 3, "lora_alpha": 3.0}),
    "use_TTLoRA ring": ("use_TTLoRA", {"tensor_ring": True}),
    "use_TTLoRA ring svd": ("use_TTLoRA", {"tensor_ring": True, "TTLoRA_init": "svd", "tt_rank": 3}),
    "use_TTLoRA all": ("use_TTLoRA", {"lora_targets": ["wi", "wo", "q", "k", "v", "o"], "freeze_cores": "first"}),
    "use_TTLoRA shared": ("use_TTLoRA", {"share_cores": "first"}),
    "use_TTLoRA activated": ("use_TTLoRA", {"cores_nonlinearity": "gelu"}),
    "ttlora_separate ring": ("ttlora_separate", {"tensor_ring": True, "lora_rank": 4}),
    "ttlora_separate by factor": ("ttlora_separate", {"ttlora_reduction_factor": 8, "lora_alpha": 1.0}),
    "tt_cross_layer ring": ("tt_cross_layer", {"tensor_ring": True, "tt_d": 3}),
    "tt_cross_layer all": ("tt_cross_layer", {"lora_targets": ["wi", "wo", "q", "v"]}),
    "tt_basis ring": ("tt_basis", {"tensor_ring": True, "tt_d": 3}),
    "tensor_train_adapters ring": ("tensor_train_adapters", {"tensor_ring": True}),
    "tensor_train_adapters expansion": ("tensor_train_adapters", {"task_expansion_factor": 2, "use_TTBias": True}),
    "tensor_train_adapters activated": ("tensor_train_adapters", {"cores_nonlinearity": "gelu", "share_cores": [0]}),
    "tensor_train_adapters frozen": ("tensor_train_adapters", {"freeze_cores": "last", "tt_d": "auto"}),
    "tensor_train_adapters outer frozen": ("tensor_train_adapters", {"freeze_cores": [0, 2], "tt_d": 3}),
    "tensor_train_single activated": (
        "tensor_train_single",
        {"cores_nonlinearity": "gelu_new", "activate_last_core": True, "non_linearity": "linear"},
    ),
    "tensor_train_single ring": ("tensor_train_single", {"tensor_ring": True}),
    "compacter": ("hypercomplex_adapters", {"shared_phm_rule": True, "factorized_phm": True, "phm_init_range": 0.5}),
    "phm shared W": ("hypercomplex_adapters", {"shared_W_phm": True, "factorized_phm_rule": True, "phm_rank": 2}),
    "phm fixed rule": ("hypercomplex_adapters", {"learn_phm": False, "phm_c_init": "uniform", "phm_init_range": 1.0}),
    "phm normalized": ("hypercomplex_adapters", {"normalize_phm_weight": True}),
    "low rank 3": ("low_rank_adapters", {"low_rank_rank": 3, "low_rank_w_init": "normal"}),
    "use_ScaleNorm mean": ("use_ScaleNorm", {"use_LayerNorm_mean": True}),
    "use_TTLayerNorm mean": ("use_TTLayerNorm", {"use_LayerNorm_mean": True, "TTLayerNorm_preinit": True}),
    "use_KroneckerLayerNorm mean": ("use_KroneckerLayerNorm", {"use_LayerNorm_mean": True}),
    "use_TTLayerNorm preinit": ("use_TTLayerNorm", {"TTLayerNorm_preinit": True, "TTLayerNorm_rk": 8}),
    "bitfit tt": ("bitfit", {"use_TTBias": True}),
    "bitfit no head": ("bitfit", {"freeze_bitfit_lm_head_all": True}),
    "prefix_tuning vocab": ("prefix_tuning", {"init_prefix_from_vocab": True}),
    "intrinsic dense": ("intrinsic_model", {"intrinsic_projection": "dense", "intrinsic_dim": 40}),
    "intrinsic normalized": ("intrinsic_said", {"normalize_intrinsic_projections": True}),
    "both": (
        "use_TTLoRA",
        {"train_task_adapters": True, "keep_serial_adapter": True, "use_ScaleNorm": True, "bitfit": True},
    ),
}
CASES = {**{name: (name, {}) for name in METHODS}, **VARIANTS}
# Random matrices or prepended vectors: the adapted model does not start at the backbone.
STARTS_ELSEWHERE = {
    "adapters",
    "low_rank_adapters",
    "hypercomplex_adapters",
    "prefix_tuning",
    "attention_prefix_tuning",
}
ACTIVATED = {"use_TTLoRA activated"}


def config_for(case: str, **keys) -> AdapterConfig:
    """The configuration of a case, with `keys` on top."""
    method, extra = CASES[case]
    flags, flag = {}, FLAGS[method]
    while flag is not None:
        flags[flag.name] = VALUES.get(flag.name, True)
        flag = BY_NAME.get(flag.metadata.get("form_of"))
    return AdapterConfig(**{**SMALL, **flags, **extra, **keys})


def cases_at(site: str) -> list[str]:
    """The cases whose method attaches at `site`."""
    return [case for case, (method, _) in CASES.items() if FLAGS[method].metadata["site"] == site]


AFTER, BESIDE, NORMS = cases_at(AFTER_SUBLAYER), cases_at(BESIDE_LINEAR), cases_at(INSTEAD_OF_NORM)
MERGEABLE = [case for case in [*BESIDE, "intrinsic_model", "intrinsic_said"] if case not in ACTIVATED]

# The first case of each site.
ONE_A_SITE = {FLAGS[method].metadata["site"]: case for case, (method, _) in reversed(CASES.items())}.values()
SOME_MERGEABLE = ["use_LoRA", "use_TTLoRA", "use_TTLoRA svd", "tt_cross_layer", "tt_basis", "ia3", "intrinsic_said"]


def linears(model) -> list[AdaptedLinear]:
    """The linear layers with a branch."""
    return [m for m in model.modules() if isinstance(m, AdaptedLinear) and m.branch is not None]


def logits(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits of a call without gradients."""
    with torch.no_grad():
        return model(**batch).logits


def moved(model: T5ForConditionalGeneration, by: float = 0.1, seed: int = 1) -> T5ForConditionalGeneration:
    """The model, its trainable parameters shifted by noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += by * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model


def adapted(config: T5Config, adapter_config: AdapterConfig, seed: int = 0, dtype=torch.float32):
    """An adapted model in evaluation mode whose adapters have moved from their initial values."""
    torch.manual_seed(seed)
    model = T5ForConditionalGeneration(config).to(dtype)
    return moved(modify_model_after_init(model, adapter_config)).eval()


def changed(config: T5Config, **fields) -> T5Config:
    """The configuration with other fields; those derived from `feed_forward_proj` are derived again."""
    kept = config.to_dict()
    for name in ("is_gated_act", "dense_act_fn"):
        kept.pop(name, None)
    return T5Config(**{**kept, **fields})


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """|a - b| / |b|."""
    return (torch.linalg.vector_norm((a - b).double()) / torch.linalg.vector_norm(b.double())).item()
