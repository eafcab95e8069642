"""Measures how base weights drift when an adapter is merged and unmerged repeatedly.

    python benchmarks/merge_drift.py [--cycles 1 10 100] [--moving] [--dtypes float32 bfloat16 float16] ..

Compared are LoRA of our T5, peft's LoRA, and TT-LoRA of t3nsor_peft. All have the same random base weights, and
adapters on wi and wo scaled to |dW| / |W| = UPDATE: both LoRAs the same weights with a random B, TT-LoRA random cores
with as many parameters. A cycle is eval() and train() for our T5, merge_adapter() and unmerge_adapter() for the other
two; --moving draws new weights for each cycle, as if the model were trained between evaluations. Columns: the drift
|W_after - W_before| / |W_before| over all adapted weights; the share of their entries that changed; and the relative
part of the first dW that is lost when the merged tensor is rounded, in the layer where it is largest.
"""

import argparse
import copy
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
import transformers  # noqa: E402
from arguments import Parser, whole  # noqa: E402
from merged_inference import MODELS, model_config, status_of  # noqa: E402

from adapters import AdapterConfig, rounding_losses  # noqa: E402
from adapters.merging import branched  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from third_party.models.t5 import T5ForConditionalGeneration  # noqa: E402
from utils import modify_model_after_init  # noqa: E402

DTYPES = ("float32", "bfloat16", "float16")
ROW = "{:8} {:>6}" + "  {:>9} {:>9}" * 3 + "  {:>9} {:>9} {:>9}"
NAMES = ("our LoRA", "peft LoRA", "TT-LoRA")


def load_peft():
    """Import peft. Raises ConfigError if it cannot be imported."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError(f"peft cannot be imported ({error}); pip install -c constraints.txt peft") from None
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # caused by peft's calls
    return peft


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Measure drift of base weights under merging.", allow_abbrev=False)
    add = parser.add_argument
    add("--model", choices=MODELS, default="t5-base", help="model whose layer sizes to use")
    add("--blocks", type=whole, default=1, help="number of encoder blocks, and of decoder blocks")
    add("--rank", type=whole, default=8, help="lora_rank; lora_alpha is twice the rank")
    add("--update", type=float, default=0.02, help="|dW| / |W| in each layer")
    add("--cycles", nargs="+", type=whole, default=[1, 10, 100], help="numbers of cycles after which to measure")
    add("--moving", action="store_true", help="new weights of the adapters in each cycle")
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="dtypes of the base weights")
    return parser.parse_args(arguments)


def models(peft, dtype: torch.dtype, args) -> tuple:
    """Our model, peft's LoRA and TT-LoRA with the same base weights, in training mode."""
    from t3nsor_peft import TTLoraConfig  # imports peft

    torch.manual_seed(0)
    sizes = {"num_layers": args.blocks, "num_decoder_layers": args.blocks, "vocab_size": 128}
    config = model_config(args.model, **sizes)
    stock, ours = transformers.T5ForConditionalGeneration(config), T5ForConditionalGeneration(config)
    ours.load_state_dict(stock.state_dict())
    adapter_config = AdapterConfig(use_LoRA=True, lora_rank=args.rank, lora_alpha=2 * args.rank)
    modify_model_after_init(ours.to(dtype), adapter_config)
    common = {"r": args.rank, "lora_alpha": 2 * args.rank, "target_modules": ["wi", "wo"]}
    tt_lora = TTLoraConfig(**common, auto_shape_mode="skewed", init_weights=False)
    others = [
        peft.get_peft_model(copy.deepcopy(stock).to(dtype), each).train()
        for each in (peft.LoraConfig(**common), tt_lora)
    ]
    return ours.train(), *others


def draw(ours, lora, trains, update: float) -> None:
    """Draw a new B, give both LoRAs the same weights, and draw new cores."""
    for name, layer in branched(ours):
        branch, twin = layer.branch, lora.get_base_model().get_submodule(name)
        size = update * layer.weight.double().norm()
        branch.B.normal_()
        branch.B.mul_(size / branch.delta(torch.float64).norm())
        twin.lora_A["default"].weight.copy_(branch.A)
        twin.lora_B["default"].weight.copy_(branch.B)
        train = trains.get_base_model().get_submodule(name)
        *_, last = train.tt_lora_cores["default"]
        last.normal_()
        last.mul_(size / train.exact_delta("default").norm())


def largest_loss(model, before: dict[str, torch.Tensor], deltas: dict[str, torch.Tensor]) -> float:
    """Relative part of dW that is missing from the merged weight of the layer where it is largest; merges the model.

    before, deltas: layer -> weight before merging, and dW in float64.
    """
    model.merge_adapter()
    losses = []
    for name, delta in deltas.items():
        merged = model.get_base_model().get_submodule(name).weight.double()
        losses.append(((merged - before[name].double() - delta).norm() / delta.norm()).item())
    return max(losses)


def merge_and_unmerge(model) -> None:
    model.merge_adapter()
    model.unmerge_adapter()


class Watch:
    """Weights, a copy of their initial values, and the merge cycle to apply to them."""

    def __init__(self, weights: list[torch.Tensor], cycle: Callable[[], object]):
        self.weights, self.cycle = weights, cycle
        self.before = [weight.clone() for weight in weights]

    def cells(self) -> list[str]:
        """The drift, and the share of entries that differ from their initial values."""
        pairs = list(zip(self.weights, self.before, strict=True))
        moved = sum((weight.double() - old.double()).square().sum() for weight, old in pairs)
        drift = (moved / sum(old.double().square().sum() for old in self.before)).sqrt().item()
        changed = sum((weight != old).sum().item() for weight, old in pairs) / sum(old.numel() for old in self.before)
        return [f"{drift:.2g}", f"{100 * changed:.2g}%"]


@torch.no_grad()
def compare(peft, dtype: str, args) -> None:
    """Print the rows of one dtype."""
    ours, *others = models(peft, getattr(torch, dtype), args)
    draw(ours, *others, args.update)
    weights = {name: layer.weight for name, layer in branched(ours)}
    deltas = [
        {name: layer.branch.delta(torch.float64) for name, layer in branched(ours)},
        {name: others[1].get_base_model().get_submodule(name).exact_delta("default") for name in weights},
    ]
    lost = [max(rounding_losses(ours).values())]
    lost += [largest_loss(copy.deepcopy(model), weights, delta) for model, delta in zip(others, deltas, strict=True)]
    watched = [Watch([*weights.values()], lambda: (ours.eval(), ours.train()))]
    for model in others:
        layers = [model.get_base_model().get_submodule(name) for name in weights]
        watched.append(Watch([layer.weight for layer in layers], partial(merge_and_unmerge, model)))
    for number in range(1, max(args.cycles) + 1):
        if args.moving and number > 1:
            draw(ours, *others, args.update)
        for watch in watched:
            watch.cycle()
        if number in args.cycles:
            cells = [cell for watch in watched for cell in watch.cells()]
            print(ROW.format(dtype, number, *cells, *(f"{loss:.2g}" for loss in lost)), flush=True)


def compare_all(args) -> None:
    """Print the table."""
    if not 0 < args.update < float("inf"):
        raise ConfigError(f"--update is {args.update}; it must be a finite number above 0")
    peft, config = load_peft(), model_config(args.model)
    print(f"{2 * args.blocks} layers {config.d_model} -> {config.d_ff} and as many back, |dW| / |W| = {args.update:g}")
    print(ROW.format("", "", *["drift", "changed"] * 3, *["dW lost"] * 3))
    print(ROW.format("dtype", "cycles", *(name for name in NAMES for _ in range(2)), *NAMES))
    for dtype in args.dtypes:
        compare(peft, dtype, args)


if __name__ == "__main__":
    given = parse(sys.argv[1:])
    sys.exit(status_of(lambda: compare_all(given)))
