"""All keys that say which method adapts the model, and how: each defined once, here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal

from adapters.activations import ACTIVATIONS
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
from common.errors import ConfigError
from common.keys import key, key_fields
from t3nsor.automatic_shape import SHAPE_MODES

ACTIVATION_NAMES = ", ".join(ACTIVATIONS)
Cores = Literal["first", "last"] | list[int] | None


@dataclass
class AdapterConfig:
    """The configuration of the adapters; it goes whole into controllers and layers.

    Raises ConfigError when keys contradict each other or hold values out of range.
    """

    # Adapters after the sublayers: which, and where.
    train_task_adapters: bool = key(
        False,
        "Train adapters after the sublayers: the plain bottleneck unless a flag says.",
        site=AFTER_SUBLAYER,
        method="adapters",
    )
    low_rank_adapters: bool = key(
        False, "Their matrices are low-rank products.", site=AFTER_SUBLAYER, form_of="train_task_adapters"
    )
    hypercomplex_adapters: bool = key(
        False, "Their matrices are sums of Kronecker products.", site=AFTER_SUBLAYER, form_of="train_task_adapters"
    )
    tensor_train_adapters: bool = key(
        False, "Their matrices are tensor trains.", site=AFTER_SUBLAYER, form_of="train_task_adapters"
    )
    tensor_train_single: bool = key(
        False, "One TT-matrix d_model -> d_model, no bottleneck.", site=AFTER_SUBLAYER, form_of="tensor_train_adapters"
    )
    keep_serial_adapter: bool = key(False, "Run these adapters also where a method beside the linear layers is on.")
    add_adapter_in_self_attention: bool = key(True, "Put an adapter after self-attention.")
    add_adapter_in_feed_forward: bool = key(True, "Put an adapter after the feed-forward sublayer.")
    task_adapter_layers_encoder: list[int] | None = key(None, "Encoder layers that are adapted; null: all.")
    task_adapter_layers_decoder: list[int] | None = key(None, "Decoder layers that are adapted; null: all.")
    task_adapter_in_decoder: bool = key(True, "Adapt the decoder too.")
    adapters_per_task: bool = key(True, "Each task of a run has adapters of its own; false: all train the same ones.")

    # The adapter itself.
    task_reduction_factor: int = key(32, "The bottleneck is d_model / task_reduction_factor wide.")
    task_expansion_factor: int | None = key(None, "If set, the hidden layer is d_model * task_expansion_factor wide.")
    non_linearity: str = key("gelu_new", f"Activation of the adapter, one of {ACTIVATION_NAMES}.")
    use_bias: bool = key(True, "Biases in the adapter's linear layers.")
    add_layer_norm_before_adapter: bool = key(False, "A LayerNorm before the adapter.")
    add_layer_norm_after_adapter: bool = key(False, "A LayerNorm after the adapter.")
    low_rank_rank: int = key(1, "Rank of the low-rank adapter's matrices.")
    low_rank_w_init: Literal["glorot-uniform", "glorot-normal", "normal"] = key(
        "glorot-uniform", "How the factors of low-rank adapters start; normal: N(0, 0.01^2)."
    )

    # Hypercomplex adapters: a matrix is sum_i A_i (x) B_i, the A_i being the rule.
    hypercomplex_division: int = key(4, "Number n of Kronecker products, and size of the n x n rule matrices.")
    hypercomplex_nonlinearity: Literal["glorot-uniform", "glorot-normal", "normal"] = key(
        "glorot-uniform", "How the matrices B_i start; normal: N(0, 0.01^2)."
    )
    learn_phm: bool = key(True, "Train the rule.")
    shared_phm_rule: bool = key(False, "One rule for the whole model.")
    factorized_phm: bool = key(False, "Each B_i is a product of rank phm_rank.")
    factorized_phm_rule: bool = key(False, "Each A_i is a product of rank phm_rank.")
    phm_rank: int = key(1, "Rank of these products.")
    shared_W_phm: bool = key(False, "One set of B_i for all down and one for all up matrices.")
    phm_c_init: Literal["normal", "uniform"] = key("normal", "How the rule starts: N(0, s^2) or U(-s, s).")
    phm_init_range: float = key(0.01, "The s of phm_c_init.")
    normalize_phm_weight: bool = key(False, "Divide each assembled matrix by its Frobenius norm.")

    # Tensor trains.
    tt_rank: int = key(8, "All ranks of the tensor trains.")
    tt_d: int | Literal["auto", "fastest"] = key(
        3, "Number of cores; auto: that with the fewest parameters; fastest: that which the cost model thinks fastest."
    )
    tt_shape: list[list[int]] | None = key(
        None, "Factors [[in], [out]] of the down matrix (the up matrix takes them swapped); null: chosen from tt_d."
    )
    auto_shape_mode: str = key(
        "ascending",
        f"Order of automatic factors, one of {', '.join(SHAPE_MODES)}. skewed: [[in/q, q], [q, out/q]], which has the "
        "parameters of LoRA of the same rank and q * q times its matrix rank (q: the common divisor nearest to 8).",
    )
    reverse_out_shape: bool = key(False, "Reverse the order of the automatic out factors.")
    factorize_smaller_dim: bool = key(
        True, "false: keep the smaller of two unequal dimensions whole, as a factor of the last core."
    )
    tensor_ring: bool = key(False, "Tensor rings instead of tensor trains, with tt_rank on the closing bond too.")
    cores_nonlinearity: str | None = key(None, f"An activation between the cores, one of {ACTIVATION_NAMES}.")
    use_checkpointing: bool = key(False, "Recompute what lies between cores with activations in the backward pass.")
    freeze_cores: Cores = key(None, "Cores that keep their random start: first, last or a list of indices.")
    share_cores: Cores = key(None, "Cores that layers and tasks have in common: first, last or a list of indices.")
    share_cores_among: Literal["layers and tasks", "tasks"] = key(
        "layers and tasks", "Whose they are: one for the whole model, or one for each layer, common to its tasks."
    )
    use_TTBias: bool = key(False, "Biases of tensor-train adapters, and those of bitfit, are tensor trains too.")
    TTBias_rk: int = key(2, "Rank of these biases.")

    # Beside the linear layers: y = x W0 + s * branch(x).
    use_LoRA: bool = key(False, "Low-rank branches beside linear layers.", site=BESIDE_LINEAR)
    lora_dense: bool = key(False, "The branch is a full matrix, for debugging.", site=BESIDE_LINEAR, form_of="use_LoRA")
    use_TTLoRA: bool = key(False, "Tensor-train branches beside linear layers.", site=BESIDE_LINEAR)
    ttlora_separate: bool = key(
        False, "LoRA's two factors are one TT-matrix each.", site=BESIDE_LINEAR, form_of="use_TTLoRA"
    )
    tt_cross_layer: bool = key(
        False,
        "One tensor train for the whole model, with layer and matrix type as modes.",
        site=BESIDE_LINEAR,
        form_of="use_TTLoRA",
    )
    tt_basis: int | None = key(
        None,
        "So many random TT-matrices shared by all layers; each layer trains a coefficient for each of them.",
        site=BESIDE_LINEAR,
        form_of="use_TTLoRA",
    )
    ia3: bool = key(False, "Vectors that scale keys, values and the inner feed-forward states.", site=BESIDE_LINEAR)
    lora_rank: int = key(8, "Width between the factors of use_LoRA and ttlora_separate.")
    lora_alpha: float | None = key(
        None, "The branch is scaled by lora_alpha / rank (lora_rank, or tt_rank where there is no such width); null: 1."
    )
    lora_dropout: float = key(0.0, "Dropout on the input of a branch, in training.")
    lora_targets: list[str] | None = key(
        None, "Linear layers with a branch, among wi, wo, q, k, v, o (wi: also wi_0 and wi_1); null: wi and wo."
    )
    TTLoRA_init: Literal["kaiming", "svd"] | None = key(
        None,
        "How the cores start beside the one that is zero: null: Glorot's variance, kaiming: He's; svd: all from the "
        "weight's TT-SVD, which is subtracted again.",
    )
    merge_at_eval: bool = key(True, "eval() merges the branches into the weights that are used, train() undoes it.")
    merge_dtype: Literal["float32", "bfloat16", "float16"] | None = key(
        None, "Precision of merged weights; null: that of the weight."
    )

    # Instead of the layer norms.
    use_ScaleNorm: bool = key(False, "One trained number instead of each norm's vector.", site=INSTEAD_OF_NORM)
    ScaleNorm_scale: float | None = key(None, "Where it starts; null: 1.")
    use_LayerNorm_mean: bool = key(False, "It starts from the mean of the vector it replaces.")
    use_TTLayerNorm: bool = key(False, "Each norm's vector is a tensor train.", site=INSTEAD_OF_NORM)
    TTLayerNorm_rk: int = key(2, "Its rank.")
    TTLayerNorm_preinit: bool = key(False, "It starts from the TT-SVD of the vector it replaces, else as ones.")
    use_KroneckerLayerNorm: bool = key(
        False, "Each norm's vector is a sum of Kronecker products with a shared rule.", site=INSTEAD_OF_NORM
    )
    KroneckerLayerNorm_n: int = key(4, "Number of these products, and length of the rule's vectors.")

    # Biases, prompts, prefixes.
    bitfit: bool = key(False, "Train a bias on every linear layer and norm.", site=ON_BIAS)
    freeze_bitfit_lm_head: bool = key(
        True, "With bitfit: train only the bias of the output layer; false: its matrix too."
    )
    freeze_bitfit_lm_head_all: bool = key(False, "With bitfit: no bias on the output layer.")
    prefix_tuning: bool = key(
        False, "Prompt tuning: soft tokens before the encoder's input (a published name).", site=BEFORE_ENCODER
    )
    prefix_dim: int = key(100, "Number of these tokens.")
    init_prefix_from_vocab: bool = key(False, "They start as embeddings of frequent pieces, else uniformly random.")
    attention_prefix_tuning: bool = key(False, "Prefix-tuning: trained keys and values before all.", site=IN_ATTENTION)
    attention_prefix_length: int = key(10, "Number of keys and values in each attention.")

    # The whole model in a random subspace.
    intrinsic_model: bool = key(False, "All weights move in one random subspace.", site=ON_WEIGHTS)
    intrinsic_said: bool = key(
        False, "With a trained scale for each tensor.", site=ON_WEIGHTS, form_of="intrinsic_model"
    )
    intrinsic_dim: int = key(20_000, "Number of parameters that are trained, the scales among them.")
    intrinsic_projection: Literal["fastfood", "dense"] = key(
        "fastfood", "How the subspace lies: a fast transform, or a stored dense matrix (small models only)."
    )
    normalize_intrinsic_projections: bool = key(
        False, "Scale the projection's random numbers to their expected length; false: leave them as drawn."
    )
    intrinsic_seed: int = key(0, "Seed of the subspace.")

    # What is trained besides.
    freeze_backbone: bool | None = key(None, "Train only what other keys name; null: exactly when a method is chosen.")
    unfreeze_layer_norms: bool = key(False, "Train the backbone's layer norms.")
    freeze_embedding: bool = key(False, "Without freeze_backbone: train all but the embedding (and the head, if tied).")
    unfreeze_lm_head: bool = key(False, "Train the output layer (in T5 v1.0 it is the input embedding as well).")

    # Not a key of any file: the tasks of the run, each with adapters of its own.
    tasks: tuple[str, ...] = ("task",)

    def __post_init__(self):
        self.tasks = tuple(self.tasks)
        check_method_flags(self)
        check(self)
        if self.freeze_backbone is None:
            self.freeze_backbone = self.method is not None
        elif self.method is not None and not self.freeze_backbone:
            raise ConfigError(f"freeze_backbone is false, but {self.method} trains adapters beside a frozen backbone")

    @property
    def methods(self) -> dict[str, str]:
        """Site -> the registry name of the method there."""
        chosen = {}
        for f in fields(self):  # a form stands behind what it is a form of, and takes its place
            if "site" in f.metadata and self.is_set(f.name):
                chosen[f.metadata["site"]] = f.metadata.get("method", f.name)
        if BESIDE_LINEAR in chosen and not self.keep_serial_adapter:
            chosen.pop(AFTER_SUBLAYER, None)
        return chosen

    @property
    def method(self) -> str | None:
        """The names of all methods; None: the model is not adapted."""
        return " + ".join(self.methods.values()) or None

    @property
    def own_adapters(self) -> bool:
        """Whether each task has adapters of its own; all other parts are common to the tasks."""
        return AFTER_SUBLAYER in self.methods and self.adapters_per_task

    @property
    def adapter_names(self) -> tuple[str, ...]:
        """Those that a batch may be run under: the tasks, or "shared" where several have all in common."""
        return self.tasks if self.own_adapters or len(self.tasks) == 1 else ("shared",)

    def is_set(self, name: str) -> bool:
        """Whether a key that chooses a method does so."""
        value = getattr(self, name)
        return value is not None and value is not False

    @classmethod
    def key_names(cls) -> list[str]:
        """The names that a configuration file may set."""
        return [f.name for f in key_fields(cls)]

    def what_is_trained(self) -> dict:
        """The keys that say which tensors there are and what they compute; the others may change between two runs."""
        incidental = ("merge_at_eval", "merge_dtype", "lora_dropout", "use_checkpointing")
        return {name: value for name, value in self.to_dict().items() if name not in incidental}

    def to_dict(self) -> dict:
        """All keys with their values, tasks left out."""
        return {name: value for name, value in asdict(self).items() if name != "tasks"}


def get_adapter_config(settings: Mapping, tasks: Sequence[str] = ("task",)) -> AdapterConfig:
    """Pick the adapter keys out of `settings`; each of `tasks` gets adapters after the sublayers of its own."""
    return AdapterConfig(
        tasks=tuple(tasks), **{name: settings[name] for name in AdapterConfig.key_names() if name in settings}
    )
