"""All configuration keys of the adapters: which methods are used and how. Each key is defined once, here."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

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
    """The configuration of all adapters of a model; controllers and layers receive it whole.

    Raises ConfigError if keys contradict each other or have values out of range.
    """

    # Adapters after the sublayers.
    train_task_adapters: bool = key(
        False,
        "Train adapters after the sublayers: bottlenecks (Houlsby et al. 2019), with dense matrices unless "
        "low_rank_adapters, hypercomplex_adapters or tensor_train_adapters is set.",
        site=AFTER_SUBLAYER,
        method="adapters",
    )
    low_rank_adapters: bool = key(
        False,
        "With train_task_adapters: the adapter's matrices are low-rank products.",
        site=AFTER_SUBLAYER,
        form_of="train_task_adapters",
    )
    hypercomplex_adapters: bool = key(
        False,
        "With train_task_adapters: the adapter's matrices are sums of Kronecker products, sum_i A_i (x) B_i "
        "(Compacter with shared_phm_rule and factorized_phm).",
        site=AFTER_SUBLAYER,
        form_of="train_task_adapters",
    )
    tensor_train_adapters: bool = key(
        False,
        "With train_task_adapters: the adapter's matrices are tensor trains, set up by the tt_* keys.",
        site=AFTER_SUBLAYER,
        form_of="train_task_adapters",
    )
    tensor_train_single: bool = key(
        False,
        "With tensor_train_adapters: the adapter is one TT-matrix d_model -> d_model, without a bottleneck.",
        site=AFTER_SUBLAYER,
        form_of="tensor_train_adapters",
    )
    keep_serial_adapter: bool = key(
        False,
        "Keep the adapters after the sublayers when a method on the linear layers (use_LoRA, use_TTLoRA, ia3) is "
        "chosen as well; false: that method replaces them.",
    )
    add_adapter_in_self_attention: bool = key(True, "Put an adapter after each self-attention.")
    add_adapter_in_feed_forward: bool = key(True, "Put an adapter after each feed-forward sublayer.")
    task_adapter_layers_encoder: list[int] | None = key(
        None, "Encoder blocks to adapt (after sublayers and on linear layers), counted from 0; null: all."
    )
    task_adapter_layers_decoder: list[int] | None = key(
        None, "Decoder blocks to adapt (after sublayers and on linear layers), counted from 0; null: all."
    )
    task_adapter_in_decoder: bool = key(
        True, "Adapt the decoder too; false: only the encoder has adapters after sublayers or on linear layers."
    )
    adapters_per_task: bool = key(
        True,
        "In a run of several tasks, give each task its own adapters after the sublayers and its own branches beside "
        "linear layers; false: tasks share them.",
    )

    # The adapter itself.
    task_reduction_factor: int = key(32, "The adapter's bottleneck has width d_model / task_reduction_factor.")
    task_expansion_factor: int | None = key(
        None,
        "If set, the adapter's hidden layer has width d_model * task_expansion_factor and task_reduction_factor is "
        "not used; null or 0: a bottleneck.",
    )
    non_linearity: str = key("gelu_new", f"Activation inside the adapters after sublayers, one of {ACTIVATION_NAMES}.")
    use_bias: bool = key(True, "Give the linear layers of the adapters after sublayers a bias.")
    add_layer_norm_before_adapter: bool = key(False, "Apply a LayerNorm to the input of each adapter.")
    add_layer_norm_after_adapter: bool = key(False, "Apply a LayerNorm to the output of each adapter.")
    low_rank_rank: int = key(1, "Rank of the matrices of low_rank_adapters.")
    low_rank_w_init: Literal["glorot-uniform", "glorot-normal", "normal"] = key(
        "glorot-uniform", "Initialisation of the factors of low_rank_adapters; normal: N(0, 0.01^2)."
    )

    # Hypercomplex adapters: a matrix is W = sum_i A_i (x) B_i, where the A_i are called the rule.
    hypercomplex_division: int = key(
        4, "Number n of Kronecker products in W = sum_i A_i (x) B_i of hypercomplex_adapters; the A_i are n x n."
    )
    hypercomplex_nonlinearity: Literal["glorot-uniform", "glorot-normal", "normal"] = key(
        "glorot-uniform", "Initialisation of the matrices B_i of hypercomplex_adapters; normal: N(0, 0.01^2)."
    )
    learn_phm: bool = key(
        True, "Train the rule, the matrices A_i of hypercomplex_adapters; false: it stays as initialised."
    )
    shared_phm_rule: bool = key(False, "Share one rule A_i among all layers of the model; false: one rule per matrix.")
    factorized_phm: bool = key(False, "Make each B_i of hypercomplex_adapters a product of rank phm_rank.")
    factorized_phm_rule: bool = key(False, "Make each A_i of hypercomplex_adapters a product of rank phm_rank.")
    phm_rank: int = key(1, "Rank of the products of factorized_phm and factorized_phm_rule.")
    shared_W_phm: bool = key(
        False, "Share one set of B_i among all down matrices of the model, and another among all up matrices."
    )
    phm_c_init: Literal["normal", "uniform"] = key(
        "normal", "Initialisation of the rule A_i: N(0, s^2) or U(-s, s), with s = phm_init_range."
    )
    phm_init_range: float = key(0.01, "The s of phm_c_init, above 0.")
    normalize_phm_weight: bool = key(
        False, "Divide each assembled matrix of hypercomplex_adapters by its Frobenius norm."
    )

    # Tensor trains.
    tt_rank: int = key(
        8, "Rank of every bond of tensor-train adapters and branches (norms: TTLayerNorm_rk, biases: TTBias_rk)."
    )
    tt_d: int | Literal["auto", "fastest"] | None = key(
        None,
        "Number of cores of a tensor train, 1 to 20; null: 3, or 2 if auto_shape_mode is skewed; auto: the number with "
        "the fewest parameters; fastest: the number with the lowest time that the cost model predicts for this "
        "machine. Not used if tt_shape is set.",
    )
    tt_shape: list[list[int]] | None = key(
        None,
        "Factors [[in_1, .., in_d], [out_1, .., out_d]] of the input and output dimension. The adapter's up matrix and "
        "branches on layers that map the other way use them swapped. null: factors are chosen for tt_d cores.",
    )
    auto_shape_mode: str = key(
        "ascending",
        f"Order of automatically chosen factors, one of {', '.join(SHAPE_MODES)}. skewed: the shape "
        "[[in/q, q], [q, out/q]] with q the common divisor nearest to 8; it has as many parameters as LoRA of the same "
        "rank, and q * q times its matrix rank.",
    )
    tt_pad: bool = key(
        False,
        "Let automatically chosen factors multiply to more than a dimension that splits badly, such as a prime: the "
        "layer pads its input with zeros and cuts its output. Not used if tt_shape is set.",
    )
    reverse_out_shape: bool = key(False, "Reverse the order of automatically chosen output factors.")
    factorize_smaller_dim: bool = key(
        True,
        "Factorise both dimensions of a matrix; false: the smaller of two unequal dimensions is not factorised and "
        "becomes a factor of the last core (of the first, if auto_shape_mode is not ascending).",
    )
    tensor_ring: bool = key(
        False, "Use tensor rings instead of tensor trains; the bond that closes the ring has rank tt_rank too."
    )
    cores_nonlinearity: str | None = key(
        None,
        f"Activation between the cores, one of {ACTIVATION_NAMES}; null: none. With one, the layer is not a matrix "
        "and cannot be merged.",
    )
    activate_last_core: bool = key(
        False,
        "With cores_nonlinearity: apply it behind the last core as well, before the bias. (relu has no gradient where "
        "a layer starts from zero, and sigmoid is not zero there; such layers then start from random cores.)",
    )
    use_checkpointing: bool = key(
        False,
        "With cores_nonlinearity: save memory by recomputing the states between the cores in the backward pass.",
    )
    freeze_cores: Cores = key(
        None, "Cores that are not trained and keep their random start: first, last or a list of indices; null: none."
    )
    share_cores: Cores = key(
        None,
        "Cores that several adapters or branches have in common (see share_cores_among): first, last or a list of "
        "indices; null: none.",
    )
    share_cores_among: Literal["layers and tasks", "tasks"] = key(
        "layers and tasks",
        "Who shares the cores of share_cores. layers and tasks: one copy for the whole model; tasks: one copy per "
        "layer, shared by the tasks.",
    )
    use_TTBias: bool = key(
        False, "Make the biases of tensor-train adapters and of bitfit tensor trains; false: dense vectors."
    )
    TTBias_rk: int = key(2, "Rank of the tensor trains of use_TTBias.")

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
