"""The configuration keys of adapters after the sublayers: where they are, and of what their matrices are made."""

from dataclasses import dataclass
from typing import Literal

from adapters.activations import ACTIVATION_NAMES
from adapters.sites import AFTER_SUBLAYER
from common.keys import key


@dataclass
class SublayerKeys:
    """A part of AdapterConfig, which says more."""

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
