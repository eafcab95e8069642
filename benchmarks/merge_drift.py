"""Measures how base weights drift when LoRA is merged and unmerged repeatedly: our implementation against peft's.

    python benchmarks/merge_drift.py [--cycles 1 10 100] [--moving] [--dtypes float32 bfloat16 float16] ..

Both models have the same random base weights and the same LoRA weights on wi and wo, with a random B scaled to
|dW| / |W| = UPDATE. A cycle is eval() and train() for ours, merge_adapter() and unmerge_adapter() for peft; --moving
draws a new B for each cycle, as if the model were trained between evaluations. Columns: the drift
|W_after - W_before| / |W_before| over all adapted weights; whether these weights are bit-identical; and the relative
part of the first dW that is lost when the merged tensor is rounded, in the layer where it is largest.
"""

import argparse
import copy
import sys
import warnings
from collections.abc import Callable
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
ROW = "{:8} {:>6}  {:>8} {:>8}  {:>8} {:>8}  {:>8} {:>8}"


def load_peft():
    """Import peft. Raises ConfigError if it cannot be imported."""
    try:
        import peft
    except ImportError as error:
        raise ConfigError(f"peft cannot be imported ({error}); pip install -c constraints.txt peft") from None
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")  # caused by peft's calls
    return peft


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Measure drift of base weights under merging, ours and peft's.", allow_abbrev=False)
    add = parser.add_argument
    add("--model", choices=MODELS, default="t5-base", help="model whose layer sizes to use")
    add("--blocks", type=whole, default=1, help="number of encoder blocks, and of decoder blocks")
    add("--rank", type=whole, default=8, help="lora_rank; lora_alpha is twice the rank")
    add("--update", type=float, default=0.02, help="|dW| / |W| in each layer")
    add("--cycles", nargs="+", type=whole, default=[1, 10, 100], help="numbers of cycles after which to measure")
    add("--moving", action="store_true", help="new LoRA weights in each cycle, the same for both models")
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="dtypes of the base weights")
    return parser.parse_args(arguments)


def twins(peft, dtype: torch.dtype, args) -> tuple:
    """Our model and peft's, with the same base weights, in training mode."""
    torch.manual_seed(0)
    sizes = {"num_layers": args.blocks, "num_decoder_layers": args.blocks, "vocab_size": 128}
    config = model_config(args.model, **sizes)
    stock, ours = transformers.T5ForConditionalGeneration(config), T5ForConditionalGeneration(config)
    ours.load_state_dict(stock.state_dict())
    adapter_config = AdapterConfig(use_LoRA=True, lora_rank=args.rank, lora_alpha=2 * args.rank)
    modify_model_after_init(ours.to(dtype), adapter_config)
    lora = peft.LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=["wi", "wo"])
    return ours.train(), peft.get_peft_model(stock.to(dtype), lora).train()


def draw(ours, theirs, update: float) -> None:
    """Draw a new B and give both models the same LoRA weights."""
    for name, layer in branched(ours):
        branch, twin = layer.branch, theirs.get_base_model().get_submodule(name)
        branch.B.normal_()
        branch.B.mul_(update * layer.weight.double().norm() / branch.delta(torch.float64).norm())
        twin.lora_A["default"].weight.copy_(branch.A)
        twin.lora_B["default"].weight.copy_(branch.B)


def peft_losses(ours, theirs) -> list[float]:
    """Relative part of dW that is missing from peft's merged weights, by layer. Leaves `theirs` merged."""
    theirs.merge_adapter()
    found = []
    for name, layer in branched(ours):
        merged, delta = theirs.get_base_model().get_submodule(name).weight.double(), layer.branch.delta(torch.float64)
        found.append(((merged - layer.weight.double() - delta).norm() / delta.norm()).item())
    return found


class Watch:
    """Weights, a copy of their initial values, and the merge cycle to apply to them."""

    def __init__(self, weights: list[torch.Tensor], cycle: Callable[[], object]):
        self.weights, self.cycle = weights, cycle
        self.before = [weight.clone() for weight in weights]

    def cells(self) -> list[str]:
        """The drift, and "yes" if all weights are bit-identical to their initial values."""
        pairs = list(zip(self.weights, self.before, strict=True))
        moved = sum((weight.double() - old.double()).square().sum() for weight, old in pairs)
        drift = (moved / sum(old.double().square().sum() for old in self.before)).sqrt().item()
        return [f"{drift:.2g}", "yes" if all(torch.equal(*pair) for pair in pairs) else "no"]


@torch.no_grad()
def compare(peft, dtype: str, args) -> None:
    """Print the rows of one dtype."""
    ours, theirs = twins(peft, getattr(torch, dtype), args)
    draw(ours, theirs, args.update)
    losses = rounding_losses(ours).values(), peft_losses(ours, copy.deepcopy(theirs))
    lost = [f"{max(values):.2g}" for values in losses]
    weights = {name: layer.weight for name, layer in branched(ours)}
    here = Watch([*weights.values()], lambda: (ours.eval(), ours.train()))
    base = theirs.get_base_model()
    there = Watch(
        [base.get_submodule(name).weight for name in weights],
        lambda: (theirs.merge_adapter(), theirs.unmerge_adapter()),
    )
    for number in range(1, max(args.cycles) + 1):
        if args.moving and number > 1:
            draw(ours, theirs, args.update)
        here.cycle()
        there.cycle()
        if number in args.cycles:
            print(ROW.format(dtype, number, *here.cells(), *there.cells(), *lost), flush=True)


def compare_all(args) -> None:
    """Print the table."""
    if not 0 < args.update < float("inf"):
        raise ConfigError(f"--update is {args.update}; it must be a finite number above 0")
    peft, config = load_peft(), model_config(args.model)
    print(f"{2 * args.blocks} layers {config.d_model} -> {config.d_ff} and as many back, |dW| / |W| = {args.update:g}")
    print(ROW.format("", "", "drift", "the same", "drift", "the same", "dW lost", "dW lost"))
    print(ROW.format("dtype", "cycles", "ours", "ours", "peft", "peft", "ours", "peft"))
    for dtype in args.dtypes:
        compare(peft, dtype, args)


if __name__ == "__main__":
    given = parse(sys.argv[1:])
    sys.exit(status_of(lambda: compare_all(given)))
