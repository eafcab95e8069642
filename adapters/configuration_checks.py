"""Checks of AdapterConfig: contradictory keys and values out of range, each reported in one line that names the key."""

import json
from dataclasses import fields
from typing import TYPE_CHECKING

from adapters.activations import ACTIVATIONS, get_activation
from adapters.parts import module_name
from adapters.sites import BESIDE_LINEAR, LINEARS
from common.errors import ConfigError, require
from t3nsor.automatic_shape import SHAPE_MODES
from t3nsor.cores import frozen_indices
from t3nsor.layers import passes_zero
from t3nsor.shapes import check_matrix_shape

if TYPE_CHECKING:  # AdapterConfig imports this module
    from adapters.adapter_configuration import AdapterConfig

AT_LEAST_ONE = (
    "task_reduction_factor",
    "task_expansion_factor",
    "low_rank_rank",
    "hypercomplex_division",
    "phm_rank",
    "tt_rank",
    "TTBias_rk",
    "tt_basis",
    "lora_rank",
    "ttlora_reduction_factor",
    "TTLayerNorm_rk",
    "KroneckerLayerNorm_n",
    "prefix_dim",
    "attention_prefix_length",
    "intrinsic_dim",
)


def check_method_flags(config: "AdapterConfig") -> None:
    """Raise ConfigError if two methods want the same site, or a variant is chosen without the method that it varies."""
    flags = [f for f in fields(config) if "site" in f.metadata and config.is_set(f.name)]
    parents = {f.name: f.metadata.get("form_of") for f in flags}
    for name, parent in parents.items():
        if parent and parent not in parents:
            raise ConfigError(
                f"{name} is {_shown(config, name)} but {parent} is not set; {name} is a variant of {parent}: set "
                f"{parent} to true"
            )
    chosen = {f.name: f.metadata["site"] for f in flags if f.name not in parents.values()}
    for name, site in chosen.items():
        others = [other for other in chosen if other != name and chosen[other] == site]
        if others:
            raise ConfigError(
                f"{name} and {others[0]} are both set, but only one method can attach {site}: set at most one of them"
            )
    if config.freeze_bitfit_lm_head_all and not config.freeze_bitfit_lm_head:
        raise ConfigError(
            "freeze_bitfit_lm_head_all is true but freeze_bitfit_lm_head is false; the first includes the second: set "
            "freeze_bitfit_lm_head to true"
        )
    if config.is_set("intrinsic_model") and len(config.methods) > 1:
        other = next(name for name in config.methods.values() if not name.startswith("intrinsic"))
        raise ConfigError(
            f"intrinsic_model and {other} are both set, but intrinsic_model adapts all weights and cannot be combined "
            "with another method: set at most one of them"
        )


def check(config: "AdapterConfig") -> None:
    """Raise ConfigError for the first key whose value is out of range or contradicts another key."""
    _check_ranges(config)
    _check_places(config)
    _check_tensor_trains(config)
    _check_branches(config)
    if config.freeze_embedding and config.unfreeze_lm_head:
        raise ConfigError(
            "freeze_embedding and unfreeze_lm_head are both true, but the embedding and the output layer may be one "
            "tensor: set at most one of them"
        )


def _shown(config: "AdapterConfig", name: str) -> str:
    """The value of a key as an error message shows it."""
    value = getattr(config, name)
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _check_ranges(config: "AdapterConfig") -> None:
    require(config, "at least 1", *AT_LEAST_ONE)
    require(config, "above 0", "phm_init_range", "lora_alpha")
    require(config, "a finite number", "ScaleNorm_scale")
    require(config, "at least 0 and below 1", "lora_dropout")
    require(config, "at least 0 and below 2**32", "intrinsic_seed")
    for name in ("tt_d", "TTLayerNorm_d"):
        if not isinstance(getattr(config, name), str):
            require(config, "at least 1", name)
            require(config, "at most 20", name)
    for name, allowed in (("non_linearity", ACTIVATIONS), ("auto_shape_mode", SHAPE_MODES)):
        if getattr(config, name) not in allowed:
            raise ConfigError(f"{name} is {getattr(config, name)!r}; allowed: {', '.join(allowed)}")
    if config.cores_nonlinearity is not None and config.cores_nonlinearity not in ACTIVATIONS:
        raise ConfigError(f"cores_nonlinearity is {config.cores_nonlinearity!r}; allowed: {', '.join(ACTIVATIONS)}")


def _check_places(config: "AdapterConfig") -> None:
    if config.train_task_adapters and not (config.add_adapter_in_self_attention or config.add_adapter_in_feed_forward):
        raise ConfigError(
            "train_task_adapters is true but no sublayer gets an adapter: set add_adapter_in_self_attention or "
            "add_adapter_in_feed_forward to true"
        )
    for target in config.lora_targets or ():
        if target not in LINEARS:
            raise ConfigError(f"lora_targets contains {target!r}; allowed: {', '.join(LINEARS)}")
    if config.lora_targets == []:
        raise ConfigError(f"lora_targets is empty; list some of {', '.join(LINEARS)}, or set it to null for wi and wo")
    if not config.tasks:
        raise ConfigError("tasks is empty; name at least one task")
    if len(set(map(module_name, config.tasks))) < len(config.tasks):
        raise ConfigError(
            f"tasks are {', '.join(config.tasks)}; adapters are named after them with . replaced by _, which gives two "
            "the same name: rename one"
        )


def _check_tensor_trains(config: "AdapterConfig") -> None:
    if config.tt_shape is not None:
        try:
            check_matrix_shape(config.tt_shape)
        except ValueError as error:
            raise ConfigError(f"tt_shape: {error}") from None
    elif config.auto_shape_mode == "skewed":
        for name, allowed in (
            ("tt_d", (2, "auto")),
            ("reverse_out_shape", (False,)),
            ("factorize_smaller_dim", (True,)),
        ):
            if getattr(config, name) not in allowed:
                raise ConfigError(
                    f"{name} is {_shown(config, name)}; with auto_shape_mode skewed it must be "
                    f"{' or '.join(map(json.dumps, allowed))}"
                )
    elif isinstance(config.tt_d, str) and not config.factorize_smaller_dim:
        raise ConfigError(f"factorize_smaller_dim is false; with tt_d {config.tt_d!r} it must be true")
    cores = len(config.tt_shape[0]) if config.tt_shape is not None else config.tt_d
    if isinstance(cores, int):
        check_cores(config, cores)
    if config.share_cores_among == "tasks":
        if config.share_cores is None or not config.adapters_per_task:
            raise ConfigError(
                'share_cores_among is "tasks"; this needs share_cores to be set and adapters_per_task to be true'
            )
        if not config.per_task:
            raise ConfigError(
                'share_cores_among is "tasks", but only adapters after sublayers and branches beside linear layers '
                'exist once per task: choose such a method, or set it to "layers and tasks"'
            )


def check_cores(config: "AdapterConfig", d: int) -> None:
    """Raise ConfigError if freeze_cores or share_cores does not fit a train of `d` cores.

    A core that is trained must be left to start as zero, behind which the activation must let a gradient through.
    """
    for name in ("freeze_cores", "share_cores"):
        indices = getattr(config, name)
        wrong = [index for index in indices if not -d <= index < d] if isinstance(indices, list) else []
        if wrong:
            raise ConfigError(f"{name} contains {wrong[0]}; {d} cores have the indices {-d} to {d - 1}")
    frozen, shown = frozen_indices(config.freeze_cores, d, "freeze_cores"), _shown(config, "freeze_cores")
    if len(frozen) == d:
        raise ConfigError(f"freeze_cores is {shown}, all of {d} cores; leave at least one to be trained")
    activation = config.cores_nonlinearity
    if d - 1 in frozen and activation is not None and not passes_zero(get_activation(activation)):
        raise ConfigError(
            f"freeze_cores is {shown} and cores_nonlinearity is {activation!r}, behind which no core may start as "
            "zero: leave the last core to be trained"
        )


def _check_branches(config: "AdapterConfig") -> None:
    method = config.methods.get(BESIDE_LINEAR)
    if config.TTLoRA_init == "svd" and method == "use_TTLoRA":
        _refuse_keys(config, 'TTLoRA_init "svd"', "cores_nonlinearity", "freeze_cores", "share_cores")
    if config.TTLoRA_init is not None and method in ("tt_cross_layer", "tt_basis"):
        raise ConfigError(f"TTLoRA_init is {config.TTLoRA_init!r}; {method} has its own initialisation: set it to null")
    if config.TTLoRA_init == "svd" and method == "ttlora_separate":
        raise ConfigError('TTLoRA_init is "svd"; ttlora_separate has nothing to decompose: set it to null or "kaiming"')
    if method in ("tt_cross_layer", "tt_basis"):
        _refuse_keys(config, method, "cores_nonlinearity", "freeze_cores", "share_cores")
    if method == "ttlora_separate":
        _refuse_keys(config, method, "tt_shape")
    if method == "ia3":
        _refuse_keys(config, method, "lora_targets", "lora_alpha")
    if "intrinsic_model" in config.methods.values() or config.intrinsic_said:
        _refuse_keys(config, "intrinsic_model", "unfreeze_lm_head", "unfreeze_layer_norms")


def _refuse_keys(config: "AdapterConfig", method: str, *names: str) -> None:
    """Raise ConfigError for the first of these keys that is set; `method` does not support them."""
    for name in names:
        if config.is_set(name):
            default = json.dumps(getattr(type(config), name))
            raise ConfigError(f"{name} is {_shown(config, name)}; {method} does not support it: set it to {default}")
