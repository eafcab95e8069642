"""The configuration of the adapters: which methods are used and how. Each key is defined once.

Those of adapters after the sublayers and of tensor trains are in `sublayer_keys.py` and `tensor_train_keys.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from adapters.configuration_checks import check, check_method_flags
from adapters.sites import (
    AFTER_SUBLAYER,
    BEFORE_ENCODER,
    BESIDE_LINEAR,
    IN_ATTENTION,
    INSTEAD_OF_NORM,
    ON_BIAS,
    ON_WEIGHTS,
)
from adapters.sublayer_keys import SublayerKeys
from adapters.tensor_train_keys import TensorTrainKeys
from common.errors import ConfigError
from common.keys import key, key_fields


@dataclass
class AdapterConfig(TensorTrainKeys, SublayerKeys):  # a dataclass puts the keys of the last base first
    """The configuration of all adapters of a model; controllers and layers receive it whole.

    Raises ConfigError if keys contradict each other or have values out of range.
    """

    # On linear layers, as a branch in parallel: y = x W0 + s * branch(x).
    use_LoRA: bool = key(
        False, "Add a low-rank branch (LoRA, Hu et al. 2021) to linear layers, see lora_targets.", site=BESIDE_LINEAR
    )
    lora_dense: bool = key(
        False,
        "With use_LoRA: the branch is a full matrix, an upper bound for debugging.",
        site=BESIDE_LINEAR,
        form_of="use_LoRA",
    )
    use_TTLoRA: bool = key(
        False, "Add a tensor-train branch to linear layers, see lora_targets and tt_rank.", site=BESIDE_LINEAR
    )
    ttlora_separate: bool = key(
        False,
        "With use_TTLoRA: the branch is LoRA whose two factors are TT-matrices.",
        site=BESIDE_LINEAR,
        form_of="use_TTLoRA",
    )
    tt_cross_layer: bool = key(
        False,
        "With use_TTLoRA: one tensor train for the whole model, with the layer and the matrix type as two more modes.",
        site=BESIDE_LINEAR,
        form_of="use_TTLoRA",
    )
    tt_basis: int | None = key(
        None,
        "With use_TTLoRA: number of random frozen TT-matrices that all layers share; each layer trains one coefficient "
        "per matrix. null: off.",
        site=BESIDE_LINEAR,
        form_of="use_TTLoRA",
    )
    ia3: bool = key(
        False,
        "Train vectors that scale the keys, the values and the inner feed-forward activations ((IA)^3).",
        site=BESIDE_LINEAR,
    )
    lora_rank: int = key(8, "Rank of the branches of use_LoRA, and inner width of those of ttlora_separate.")
    ttlora_reduction_factor: int | None = key(
        None,
        "If set, the inner width of the branches of ttlora_separate is in_features / ttlora_reduction_factor, and "
        "lora_alpha is divided by tt_rank; null: the inner width is lora_rank.",
    )
    lora_alpha: float | None = key(
        None,
        "Branches are scaled by lora_alpha / rank, where rank is lora_rank for use_LoRA and ttlora_separate, 1 for "
        "lora_dense, and tt_rank otherwise (also with ttlora_reduction_factor); null: a scale of 1.",
    )
    lora_dropout: float = key(0.0, "Dropout on the input of each branch during training, from 0 to below 1.")
    lora_targets: list[str] | None = key(
        None, "Linear layers that get a branch, from wi, wo, q, k, v, o (wi includes wi_0 and wi_1); null: wi and wo."
    )
    TTLoRA_init: Literal["kaiming", "svd"] | None = key(
        None,
        "Initialisation of the branch of use_TTLoRA. null: Glorot's variance, kaiming: He's, both with the last core "
        "zero; svd: all cores from the TT-SVD of the weight, whose initial value is subtracted from the output.",
    )
    merge_at_eval: bool = key(
        True, "Let eval() merge each branch into the weight that is used, and train() undo it; false: never merge."
    )
    merge_dtype: Literal["float32", "bfloat16", "float16"] | None = key(
        None, "Dtype of merged weights; null: that of the weight."
    )

    # Instead of the layer norms.
    use_ScaleNorm: bool = key(
        False, "Replace the weight vector of each layer norm by one trained number (ScaleNorm).", site=INSTEAD_OF_NORM
    )
    ScaleNorm_scale: float | None = key(
        1.0, "Initial value of the number of use_ScaleNorm (null: 1). Not used with use_LayerNorm_mean."
    )
    use_LayerNorm_mean: bool = key(
        False,
        "Start use_ScaleNorm, use_TTLayerNorm and use_KroneckerLayerNorm from the mean of the weight vector that is "
        "replaced.",
    )
    use_TTLayerNorm: bool = key(
        False, "Replace the weight vector of each layer norm by a tensor train.", site=INSTEAD_OF_NORM
    )
    TTLayerNorm_rk: int = key(2, "Rank of the tensor trains of use_TTLayerNorm.")
    TTLayerNorm_d: int = key(3, "Number of cores of the tensor trains of use_TTLayerNorm, 1 to 20.")
    TTLayerNorm_preinit: bool = key(
        False,
        "With use_TTLayerNorm: start from the TT-SVD of the weight vector that is replaced; false: from ones. Not used "
        "with use_LayerNorm_mean.",
    )
    use_KroneckerLayerNorm: bool = key(
        False,
        "Replace the weight vector of each layer norm by a sum of Kronecker products, sum_i a_i (x) s_i (x) t_i, with "
        "the a_i shared by all norms.",
        site=INSTEAD_OF_NORM,
    )
    KroneckerLayerNorm_n: int = key(
        4, "Number n of products in use_KroneckerLayerNorm, and length of the a_i; it must divide d_model."
    )
    freeze_norms: bool = key(
        False,
        "Keep the norms of use_ScaleNorm, use_TTLayerNorm and use_KroneckerLayerNorm as they start; false: train them.",
    )

    # Biases, prompts, prefixes.
    bitfit: bool = key(False, "Add a trained bias to every linear layer and norm (BitFit).", site=ON_BIAS)
    freeze_bitfit_lm_head: bool = key(
        True, "With bitfit: train only the bias of the output layer; false: its matrix too."
    )
    freeze_bitfit_lm_head_all: bool = key(False, "With bitfit: add no bias to the output layer.")
    prefix_tuning: bool = key(
        False,
        "Prompt tuning: train soft tokens in front of the encoder's input (the key's name is historical; for "
        "prefix-tuning see attention_prefix_tuning).",
        site=BEFORE_ENCODER,
    )
    prefix_dim: int = key(100, "Number of soft tokens of prefix_tuning.")
    init_prefix_from_vocab: bool = key(
        False,
        "Start the soft tokens of prefix_tuning from embeddings of frequent tokens, drawn at random; false: from "
        "U(-0.5, 0.5).",
    )
    attention_prefix_tuning: bool = key(
        False,
        "Prefix-tuning: train keys and values in front of those of every attention.",
        site=IN_ATTENTION,
    )
    attention_prefix_length: int = key(
        10, "Number of keys and values that attention_prefix_tuning adds to each attention."
    )

    # The whole model in a random subspace.
    intrinsic_model: bool = key(
        False, "Train all weights of the model in one random subspace of intrinsic_dim dimensions.", site=ON_WEIGHTS
    )
    intrinsic_said: bool = key(
        False,
        "With intrinsic_model: also train one scale per weight tensor (SAID).",
        site=ON_WEIGHTS,
        form_of="intrinsic_model",
    )
    intrinsic_dim: int = key(
        20_000, "Number of parameters that intrinsic_model trains, the scales of intrinsic_said included."
    )
    intrinsic_projection: Literal["fastfood", "dense"] = key(
        "fastfood",
        "Projection of intrinsic_model from the subspace to the weights. fastfood: a fast transform that is never "
        "stored as a matrix; dense: a stored random matrix, for small models only.",
    )
    normalize_intrinsic_projections: bool = key(
        False,
        "Scale the random vectors of the projection of intrinsic_model to their expected length; false: leave them as "
        "drawn.",
    )
    intrinsic_seed: int = key(0, "Random seed of the subspace of intrinsic_model.")

    # What else is trained.
    freeze_backbone: bool | None = key(
        None, "Train only the parameters that other keys name; null: true if a method is chosen, else false."
    )
    unfreeze_layer_norms: bool = key(False, "Train the backbone's layer norms as well.")
    freeze_embedding: bool = key(
        False,
        "Without freeze_backbone: train everything except the input embedding (and the output layer, if the two are "
        "tied).",
    )
    unfreeze_lm_head: bool = key(
        False, "Train the output layer as well (in T5 v1.0 it is tied to the input embedding)."
    )

    # Set by the program, not by a file: the tasks of the run.
    tasks: tuple[str, ...] = ("task",)

    def __post_init__(self) -> None:
        self.tasks = tuple(self.tasks)
        self.task_expansion_factor = self.task_expansion_factor or None
        if self.tt_d is None:
            self.tt_d = 2 if self.auto_shape_mode == "skewed" else 3
        check_method_flags(self)
        check(self)
        if self.freeze_backbone is None:
            self.freeze_backbone = self.method is not None
        elif self.method is not None and not self.freeze_backbone:
            raise ConfigError(
                f"freeze_backbone is false, but {self.method} needs a frozen backbone: set freeze_backbone to true or "
                "null"
            )

    @property
    def methods(self) -> dict[str, str]:
        """The chosen methods: site -> name in the registry."""
        chosen: dict[str, str] = {}
        for f in fields(self):  # a variant is declared after its parent and replaces it
            if "site" in f.metadata and self.is_set(f.name):
                chosen[f.metadata["site"]] = f.metadata.get("method", f.name)
        if BESIDE_LINEAR in chosen and not self.keep_serial_adapter:
            chosen.pop(AFTER_SUBLAYER, None)
        return chosen

    @property
    def method(self) -> str | None:
        """The names of all chosen methods, joined by " + "; None if the model is not adapted."""
        return " + ".join(self.methods.values()) or None

    @property
    def own_adapters(self) -> bool:
        """True if each task has its own adapters after the sublayers; its name is left out of the sources then."""
        return AFTER_SUBLAYER in self.methods and self.adapters_per_task

    @property
    def per_task(self) -> bool:
        """True if each task has its own adapters after the sublayers, or branches; tasks share all other parts."""
        return not {AFTER_SUBLAYER, BESIDE_LINEAR}.isdisjoint(self.methods) and self.adapters_per_task

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """The names of the sets of adapters: the tasks, or "shared" if several tasks share everything."""
        return self.tasks if self.per_task or len(self.tasks) == 1 else ("shared",)

    def is_set(self, name: str) -> bool:
        """True unless the value of the key is null or false."""
        value = getattr(self, name)
        return value is not None and value is not False

    def structural_keys(self) -> dict[str, Any]:
        """The keys that decide which tensors exist and what they compute; only the others may differ on loading."""
        incidental = ("merge_at_eval", "merge_dtype", "lora_dropout", "use_checkpointing")
        return {name: value for name, value in self.to_dict().items() if name not in incidental}

    def to_dict(self) -> dict[str, Any]:
        """All keys with their values, without `tasks`."""
        return {name: value for name, value in asdict(self).items() if name != "tasks"}


def get_adapter_config(settings: Mapping[str, Any], tasks: Sequence[str] = ("task",)) -> AdapterConfig:
    """Build the AdapterConfig from the adapter keys in `settings`, ignoring other keys.

    settings: all keys of a run.
    tasks: names of the tasks; with adapters_per_task each gets its own adapters and branches.
    """
    keys = {f.name for f in key_fields(AdapterConfig)}
    return AdapterConfig(tasks=tuple(tasks), **{name: value for name, value in settings.items() if name in keys})
