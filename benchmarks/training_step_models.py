"""Models for training_step.py: whole T5s and a Llama block, each with one method, and the LoRAs of peft beside them.

All T5s share the tensors of one random backbone, as all but what a method trains is frozen; what it trains of the
backbone is copied first.
"""

from copy import deepcopy
from functools import cached_property
from pathlib import Path

import torch
import transformers
from merged_inference import MODELS, model_config
from peft import LoraConfig, get_peft_model
from torch import nn

from adapters import AdaptedLinear, AdapterConfig, Branch
from adapters.merging import branched
from common.json_settings import read_file
from t3nsor_peft import MetaTTConfig, TTLoraConfig
from third_party.models.t5 import T5ForConditionalGeneration
from utils import get_adapter_config, modify_model_after_init

CONFIGS = Path(__file__).parents[1] / "configs"
LLAMA = "llama-block"
NAMES = (*MODELS, LLAMA)
WI_WO = ("wi", "wo")

_TT = {"use_TTLoRA": True, "tt_rank": 8}
VARIANTS = {
    "tt_lora skewed": {**_TT, "tt_d": 2, "auto_shape_mode": "skewed"},
    "tt_lora square": {**_TT, "tt_d": 2},
    "tt_lora d3": {**_TT, "tt_d": 3},
}
_FILES = {path.stem: read_file(path) for path in sorted(CONFIGS.glob("*.json"))}
FILES = {name: keys for name, keys in _FILES.items() if isinstance(keys["task_name"], str)}
T5_METHODS = {**VARIANTS, **FILES}
T5_DEFAULT = (*VARIANTS, "lora", "tt_adapter", "adapters", "compacter", "ia3", "bitfit", "prefix_tuning")
T5_DEFAULT += ("prompt_tuning_random_init", "scale_norm", "intrinsic", "baseline")
LLAMA_METHODS = {
    "tt_lora skewed": lambda rank: TTLoraConfig(r=rank, target_modules="all-linear", auto_shape_mode="skewed"),
    "tt_lora square": lambda rank: TTLoraConfig(r=rank, target_modules="all-linear"),
    "meta_tt square": lambda rank: MetaTTConfig(r=rank, target_modules="all-linear"),
}


class T5Models:
    """Makes T5s of one size and dtype, with one method each."""

    methods, default = tuple(T5_METHODS), T5_DEFAULT

    def __init__(self, args, dtype: torch.dtype):
        torch.manual_seed(0)
        self.args, self.config = args, model_config(args.model)
        self.backbone = transformers.T5ForConditionalGeneration(self.config).to(args.device, dtype).state_dict()
        self.full_rank = self.config.d_model
        drawn = {"input_ids": (args.rows, args.length), "labels": (args.rows, args.target)}
        self.batch = {name: torch.randint(2, self.config.vocab_size, size) for name, size in drawn.items()}
        self.batch["attention_mask"] = torch.ones_like(self.batch["input_ids"])
        self.batch = {name: tensor.to(args.device) for name, tensor in self.batch.items()}

    def method(self, name: str) -> nn.Module:
        return self._owning(modify_model_after_init(self._sharing(T5ForConditionalGeneration), self._keys(name)))

    def lora(self, rank: int, targets: tuple[str, ...] = WI_WO) -> nn.Module:
        plain = self._sharing(transformers.T5ForConditionalGeneration)
        return get_peft_model(plain, LoraConfig(r=rank, lora_alpha=rank, target_modules=list(targets)))

    def targets(self, name: str) -> tuple[str, ...]:
        """The linear layers of peft's LoRA beside a method: its own, or wi and wo if it has none."""
        return tuple(self._keys(name).lora_targets or WI_WO)

    def label(self, targets: tuple[str, ...]) -> str:
        """What the name of a LoRA says about its layers."""
        return "" if targets == WI_WO else " " + ",".join(targets)

    def loss(self, model: nn.Module) -> torch.Tensor:
        return model(**self.batch).loss

    def _keys(self, name: str) -> AdapterConfig:
        return get_adapter_config(T5_METHODS[name])

    def _sharing(self, cls) -> nn.Module:
        """A model whose parameters are the backbone's tensors."""
        with torch.device("meta"):
            model = cls(self.config)
        model.load_state_dict(self.backbone, assign=True)
        model.tie_weights()
        return model

    def _owning(self, model: nn.Module) -> nn.Module:
        """The model, with copies of the tensors of the backbone that it trains."""
        backbone = {tensor.data_ptr() for tensor in self.backbone.values()}
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.data_ptr() in backbone:
                parameter.data = parameter.data.clone()
        return model


class LlamaModels:
    """Makes Llama blocks with one method of peft each, on all linear layers."""

    methods = default = tuple(LLAMA_METHODS)

    def __init__(self, args, dtype: torch.dtype):
        torch.manual_seed(0)
        self.args, self.dtype, self.full_rank = args, dtype, args.hidden
        self.x = torch.randn(args.rows, args.length, args.hidden).to(args.device, dtype).requires_grad_()

    @cached_property
    def block(self) -> nn.Module:
        sizes = {"hidden_size": self.args.hidden, "intermediate_size": self.args.intermediate, "vocab_size": 64}
        heads = max(1, self.args.hidden // 64)
        config = transformers.LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=heads)
        return transformers.LlamaModel(config).to(self.args.device, self.dtype)

    def method(self, name: str) -> nn.Module:
        return get_peft_model(deepcopy(self.block), LLAMA_METHODS[name](self.args.rank))

    def lora(self, rank: int, targets: str = "all-linear") -> nn.Module:
        return get_peft_model(deepcopy(self.block), LoraConfig(r=rank, lora_alpha=rank, target_modules=targets))

    def targets(self, name: str) -> str:
        return "all-linear"

    def label(self, targets: str) -> str:
        return ""

    def loss(self, model: nn.Module) -> torch.Tensor:
        return model(inputs_embeds=self.x).last_hidden_state.float().square().mean()


def matrix_rank(model: nn.Module) -> tuple[int, bool] | None:
    """The rank of the matrix that a branch adds to its linear layer, and whether it is full; None without such layers.

    Of the first layer, with random parameters, as some start at zero.
    """
    layers = [layer.branch for _, layer in branched(model) if isinstance(layer, AdaptedLinear)]
    layers = [branch for branch in layers if type(branch).delta is not Branch.delta]
    layers += [module for module in model.modules() if hasattr(module, "exact_delta")]
    if not layers:
        return None
    branch, generator = deepcopy(layers[0]), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
        delta = branch.exact_delta("default") if hasattr(branch, "exact_delta") else branch.delta(torch.float64)
    rank = int(torch.linalg.matrix_rank(delta.double().cpu()))
    return rank, rank == min(delta.shape)
