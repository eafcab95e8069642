"""What keys of other programs' files mean here: the one table of all that is read differently.

Older files use keys that were renamed or are no longer needed. A dialect is the language of one program: its defaults,
and what its keys mean differently. It only sets ordinary keys, which anybody may set, so the resolved configuration
needs no dialect. docs/migration.md explains the differences.

compacter: Compacter (Mahabadi et al. 2021, https://arxiv.org/abs/2106.04647).
ttcompacter: its tensor-train fork.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from adapters import AdapterConfig
from common.keys import key_fields

Values = Mapping[str, Any]
# A value, or how to compute it from the keys of the file and the command line.
Meaning = Any | Callable[[Values], Any]


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "num_beams": "generation_num_beams",
    "val_max_target_length": "generation_max_length",
    "no_cuda": "use_cpu",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
}
# Keys that stand for another key unless they are false or 0: their type, and what they mean.
TRANSLATED: dict[str, tuple[type, Callable[[Any], dict[str, Any]]]] = {
    "adafactor": (bool, lambda value: {"optim": "adafactor"}),
    "evaluate_during_training": (bool, lambda value: {"eval_strategy": "steps"}),
    "group_by_length": (bool, lambda value: {"train_sampling_strategy": "group_by_length"}),
    "ttcore_checkpointing": (bool, lambda value: {"use_checkpointing": True}),
    "warmup_ratio": (float, lambda value: {"warmup_steps": value}),
}
RENAMED_VALUES = {("TTLoRA_init", "kaiming_zero"): "kaiming", ("intrinsic_projection", "random"): "dense"}
# Keys that have no effect at this value; others are not supported.
ONE_VALUE = {"config_name": None, "model_revision": "main"}
# Keys without an effect on what is trained: of Compacter and its fork, and of transformers before version 5.
DROPPED = names(
    "adapter_config_name cache_dir dataset_config_name eval_dataset_config_name hidden_dim ignore_pad_token_for_loss "
    "intrinsic_layer_norms kronecker_prod max_seq_length naive overwrite_cache pad_to_max_length prefix_length "
    "preprocessing_num_workers split_validation_test task_adapters task_embeddings test_dataset_config_name "
    "test_max_target_length ttpy_eps use_auth_token use_fast_tokenizer use_scripted_mul use_tokenizer_fast "
    "dispatch_batches fp16_backend fp16_opt_level half_precision_backend include_inputs_for_metrics "
    "include_tokens_per_second jit_mode_eval logging_dir mp_parameters past_index push_to_hub_model_id "
    "push_to_hub_organization push_to_hub_token ray_scope save_safetensors split_batches torchdynamo "
    "tpu_metrics_debug tpu_num_cores use_ipex use_legacy_prediction_loop use_mps_device xpu_backend sharded_ddp "
    "fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap no_safetensors"
)


@dataclass(frozen=True)
class Rule:
    """What a dialect means where some keys are set.

    when, unless: the rule holds if all keys of `when` are set and none of `unless` is.
    defaults: values of keys that neither the file nor the command line sets.
    instead: values that replace those of the file, but not those of the command line.
    renamed: key of the dialect -> the key that it means.
    """

    when: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    defaults: Mapping[str, Meaning] = field(default_factory=dict)
    instead: Mapping[str, Meaning] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)

    def holds(self, values: Values) -> bool:
        return all(map(values.get, self.when)) and not any(map(values.get, self.unless))


BRANCHES = ("use_LoRA", "use_TTLoRA")
TARGETS = ["wi", "wo", "q", "v"]
COMPACTER = (
    Rule(defaults={"do_test": False}),
    Rule(
        when=("train_task_adapters",),
        unless=BRANCHES,
        defaults={"task_reduction_factor": 16, "non_linearity": "swish", "add_layer_norm_after_adapter": True},
    ),
    Rule(when=("hypercomplex_adapters",), unless=BRANCHES, defaults={"hypercomplex_division": 8}),
    Rule(when=("intrinsic_model",), defaults={"intrinsic_dim": 100}),
    Rule(when=("bitfit",), unless=("freeze_bitfit_lm_head_all",), defaults={"freeze_bitfit_lm_head": False}),
)
TTCOMPACTER = (
    Rule(instead={"output_dir": lambda values: str(PurePath("outputs", _tasks(values), values["experiment_name"]))}),
    Rule(when=("tensor_train_single",), unless=BRANCHES, instead={"non_linearity": "linear"}),
    Rule(when=("cores_nonlinearity", "tensor_train_adapters"), unless=BRANCHES, defaults={"activate_last_core": True}),
    Rule(when=("cores_nonlinearity", "use_TTLoRA"), defaults={"activate_last_core": True}),
    Rule(when=("use_LoRA",), defaults={"lora_targets": TARGETS}),
    Rule(when=("use_LoRA",), unless=("lora_dense",), renamed={"tt_rank": "lora_rank"}, defaults={"lora_alpha": 1.0}),
    Rule(when=("use_LoRA", "lora_dense"), defaults={"lora_alpha": lambda values: 1 / (values.get("tt_rank", 8) or 1)}),
    Rule(when=("use_TTLoRA",), defaults={"lora_targets": TARGETS, "lora_alpha": 1.0}),
    Rule(when=("use_TTLoRA", "ttlora_separate"), defaults={"ttlora_reduction_factor": 32}),
    Rule(when=("use_TTLayerNorm", "use_ScaleNorm"), instead={"use_ScaleNorm": False}),
    Rule(when=("use_TTLayerNorm",), unless=("unfreeze_layer_norms",), defaults={"freeze_norms": True}),
    Rule(when=("use_ScaleNorm",), unless=("unfreeze_layer_norms",), defaults={"freeze_norms": True}),
)
RULES = {"compacter": COMPACTER, "ttcompacter": COMPACTER + TTCOMPACTER}

# A file of Compacter's family has this key, and the next one or one of the methods that do without it.
FAMILY_KEY = "split_validation_test"
ADAPTER_KEY = "adapter_config_name"
WITHOUT_ADAPTER_KEY = ("bitfit", "prefix_tuning", "intrinsic_model")
COMPACTER_KEYS = names(
    "add_adapter_in_feed_forward add_adapter_in_self_attention add_layer_norm_after_adapter "
    "add_layer_norm_before_adapter bitfit factorized_phm factorized_phm_rule freeze_bitfit_lm_head "
    "freeze_bitfit_lm_head_all hypercomplex_adapters hypercomplex_division hypercomplex_nonlinearity "
    "init_prefix_from_vocab intrinsic_dim intrinsic_model intrinsic_projection intrinsic_said learn_phm "
    "low_rank_adapters low_rank_rank low_rank_w_init non_linearity normalize_intrinsic_projections "
    "normalize_phm_weight phm_c_init phm_init_range phm_rank prefix_dim prefix_tuning shared_W_phm shared_phm_rule "
    "task_adapter_in_decoder task_adapter_layers_decoder task_adapter_layers_encoder task_reduction_factor "
    "train_task_adapters unfreeze_layer_norms unfreeze_lm_head"
)
TTCOMPACTER_KEYS = names(
    "ScaleNorm_scale TTBias_rk TTLayerNorm_preinit TTLayerNorm_rk TTLoRA_init auto_shape_mode cores_nonlinearity "
    "factorize_smaller_dim freeze_cores lora_dense naive reverse_out_shape task_expansion_factor "
    "tensor_train_adapters tensor_train_single tt_d tt_rank tt_shape ttcore_checkpointing ttlora_separate ttpy_eps "
    "use_LayerNorm_mean use_LoRA use_ScaleNorm use_TTBias use_TTLayerNorm use_TTLoRA use_bias use_checkpointing "
    "use_scripted_mul"
)
OUR_KEYS = frozenset(f.name for f in key_fields(AdapterConfig)) - COMPACTER_KEYS - TTCOMPACTER_KEYS


def _tasks(values: Values) -> str:
    """The task of a run, or its tasks joined by "+"."""
    tasks = values["task_name"]
    return tasks if isinstance(tasks, str) else "+".join(tasks)
