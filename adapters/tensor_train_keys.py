"""The configuration keys of tensor trains: their shape, rank and cores, in adapters, branches and biases."""

from dataclasses import dataclass
from typing import Literal

from adapters.activations import ACTIVATION_NAMES
from common.keys import key
from t3nsor.automatic_shape import SHAPE_MODES

Cores = Literal["first", "last"] | list[int] | None


@dataclass
class TensorTrainKeys:
    """A part of AdapterConfig, which says more."""

    tt_rank: int = key(
        8, "Rank of every bond of tensor-train adapters and branches (norms: TTLayerNorm_rk, biases: TTBias_rk)."
    )
    tt_d: int | Literal["auto", "fastest"] | None = key(
        None,
        "Number of cores of a tensor train, 1 to 20; null: 3, or 2 if auto_shape_mode is skewed; auto: the number with "
        "the fewest parameters; fastest: the number with the lowest time that the cost model predicts for a generic "
        "CPU. Not used if tt_shape is set.",
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
    tt_strategy: Literal["auto", "measured"] = key(
        "auto",
        "How the order of contraction is chosen. auto: the one that was the fastest when it was measured on this "
        "machine, else the one with the lowest predicted time; measured: each problem is measured when it is first "
        "met, which takes some seconds, and remembered. Results agree up to rounding.",
    )
    tt_save: Literal["fast", "least"] = key(
        "fast",
        "What a tensor train keeps for the backward pass beside its input and cores. fast: what is computed between "
        "the cores where it is no larger than the input, and an adapter's matrices where they are no larger than input "
        "and output; least: nothing, which takes a little longer.",
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
