"""The registry of methods: the class that implements each. A new method is one line here."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from adapters.adapter_configuration import AdapterConfig
from adapters.adapter_modeling import Adapter, TensorTrainAdapter, TensorTrainSingleAdapter
from adapters.biases import AddedBias
from adapters.hypercomplex import HypercomplexAdapter
from adapters.ia3 import IA3Branch
from adapters.intrinsic import IntrinsicSubspace
from adapters.lora import DenseBranch, LoRABranch
from adapters.low_rank import LowRankAdapter
from adapters.norms import KroneckerLayerNorm, ScaleNorm, TTLayerNorm
from adapters.prompts import AttentionPrefix, SoftPrompt
from adapters.tt_basis import TTBasisBranch
from adapters.tt_cross_layer import CrossLayerBranch
from adapters.tt_lora import SeparateTTLoRABranch, TTLoRABranch


@dataclass(frozen=True)
class Method:
    """One method. Its site and its keys are declared in AdapterConfig.

    cls: the class that implements it.
    formula: what it computes.
    paper: authors, year and address of the paper.
    foldable: True if the trained result can be folded into the weights of a plain T5.
    """

    cls: type[nn.Module]
    formula: str
    paper: str
    foldable: bool = False


HOULSBY = "Houlsby et al. 2019, https://arxiv.org/abs/1902.00751"
COMPACTER = "Mahabadi et al. 2021, https://arxiv.org/abs/2106.04647"
LORA = "Hu et al. 2021, https://arxiv.org/abs/2106.09685"
TT_MATRIX = "Novikov et al. 2015, https://arxiv.org/abs/1509.06569"
TT_LORA = "Anjum et al. 2024, https://arxiv.org/abs/2408.01008"
META_TT = "Lopez-Piqueres et al. 2025, https://arxiv.org/abs/2506.09105"
NOLA = "Koohpayegani et al. 2023, https://arxiv.org/abs/2310.02556"
IA3 = "Liu et al. 2022, https://arxiv.org/abs/2205.05638"
SCALE_NORM = "Nguyen & Salazar 2019, https://arxiv.org/abs/1910.05895"
BITFIT = "Ben Zaken et al. 2021, https://arxiv.org/abs/2106.10199"
PROMPT = "Lester et al. 2021, https://arxiv.org/abs/2104.08691"
PREFIX = "Li & Liang 2021, https://arxiv.org/abs/2101.00190"
SUBSPACE = "Li et al. 2018, https://arxiv.org/abs/1804.08838"
SAID = "Aghajanyan et al. 2020, https://arxiv.org/abs/2012.13255"

METHODS: dict[str, Method] = {
    "adapters": Method(Adapter, "y + U f(D y)", HOULSBY),
    "low_rank_adapters": Method(LowRankAdapter, "y + U f(D y), U and D of low rank", COMPACTER),
    "hypercomplex_adapters": Method(HypercomplexAdapter, "y + U f(D y), U and D = sum A_i (x) B_i", COMPACTER),
    "tensor_train_adapters": Method(TensorTrainAdapter, "y + U f(D y), U and D tensor trains", TT_MATRIX),
    "tensor_train_single": Method(TensorTrainSingleAdapter, "y + W f(y), W a tensor train", TT_MATRIX),
    "use_LoRA": Method(LoRABranch, "x (W0 + s B A)^T", LORA, foldable=True),
    "lora_dense": Method(DenseBranch, "x (W0 + s D)^T", LORA, foldable=True),
    "use_TTLoRA": Method(TTLoRABranch, "x (W0^T + s W), W a tensor train", TT_LORA, foldable=True),
    "ttlora_separate": Method(SeparateTTLoRABranch, "x (W0^T + s A B), A, B tensor trains", TT_LORA, foldable=True),
    "tt_cross_layer": Method(CrossLayerBranch, "x (W0^T + s W[layer, type]), one train", META_TT, foldable=True),
    "tt_basis": Method(TTBasisBranch, "x (W0^T + s sum c_k B_k), B_k tensor trains", NOLA, foldable=True),
    "ia3": Method(IA3Branch, "l * (x W0^T) for k and v, (l * x) W0^T for wo", IA3, foldable=True),
    "use_ScaleNorm": Method(ScaleNorm, "g x / rms(x), g a number", SCALE_NORM, foldable=True),
    "use_TTLayerNorm": Method(TTLayerNorm, "w x / rms(x), w a tensor train", TT_MATRIX, foldable=True),
    "use_KroneckerLayerNorm": Method(
        KroneckerLayerNorm, "w x / rms(x), w = sum a_i (x) s_i (x) t_i", COMPACTER, foldable=True
    ),
    "bitfit": Method(AddedBias, "y + b", BITFIT),
    "prefix_tuning": Method(SoftPrompt, "[p; x]", PROMPT),
    "attention_prefix_tuning": Method(AttentionPrefix, "attention(q, [p; k], [r; v])", PREFIX),
    "intrinsic_model": Method(IntrinsicSubspace, "W0 + P theta, for all weights", SUBSPACE, foldable=True),
    "intrinsic_said": Method(IntrinsicSubspace, "W0 + lambda_l P theta, for all weights", SAID, foldable=True),
}


def build(config: AdapterConfig, site: str, *arguments: Any) -> Any:
    """Build a module of the method that `config` chooses for `site`.

    arguments: passed to its class after `config`; they depend on the site.
    """
    return METHODS[config.methods[site]].cls(config, *arguments)
