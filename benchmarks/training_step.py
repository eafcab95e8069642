"""Measures whole training steps of methods against peft's LoRA on the same linear layers: time and memory.

    python benchmarks/training_step.py [--model t5-base] [--methods "tt_lora skewed" tt_adapter ..] [--rounds 7] ..
    python benchmarks/training_step.py --model llama-block --rows 4 --length 128

A step is forward, backward and AdamW on a T5 of a published size with random weights, or on a Llama block. Methods of
T5 are the configurations of configs/, and three of TT-LoRA with rank 8 that differ in their shapes; those of a Llama
block are methods of peft. The steps of all take turns, in a new random order each round, and each round yields one
ratio to a LoRA's time. Columns: trained parameters; the median of the seconds; the medians of the ratios to LoRA of
rank R, with their quartiles, to LoRA with as many parameters, and to LoRA whose update can have the same matrix rank
(ranks in parentheses; "full": the update can be any matrix); saved activations, the bytes that autograd keeps for the
backward pass, without parameters; and the peak of live bytes during a step. All models are alive at once, and those of
T5 share the tensors of one frozen backbone; the peak is that of each model alone.
"""

import argparse
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
from arguments import Parser, threads, whole  # noqa: E402
from merge_drift import load_peft  # noqa: E402
from merged_inference import device, status_of  # noqa: E402
from training_step_models import LLAMA, NAMES, LlamaModels, T5Models, matrix_rank  # noqa: E402
from training_step_trained import Trained  # noqa: E402

DTYPES = ("float32", "bfloat16")
ROW = "{:9} {:26} {:>11} {:>8} {:>7} {:>13} {:>12} {:>12} {:>9} {:>7} {:>9} {:>7}"
COLUMNS = ("dtype", "method", "parameters", "ms/step", "/ LoRA", "quartiles", "/ equal par.", "/ equal rank")
COLUMNS += ("saved MiB", "/ LoRA", "peak MiB", "/ LoRA")


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Time training steps of methods against peft's LoRA.", allow_abbrev=False)
    add = parser.add_argument
    add("--model", choices=NAMES, default="t5-base", help="size of the T5, or a block of Llama")
    add("--dtypes", nargs="+", choices=DTYPES, default=["float32"], help="dtypes of the frozen weights")
    add("--methods", nargs="+", help="methods to measure, or all; default: one of each kind")
    add("--rank", type=whole, default=8, help="rank of peft's LoRA, and r of the methods on a Llama block")
    add("--rounds", type=whole, default=7, help="rounds in which every method does one step")
    add("--rows", type=whole, default=8, help="sequences in a batch")
    add("--length", type=whole, default=64, help="tokens of a sequence, of T5's source")
    add("--target", type=whole, default=8, help="tokens of T5's target")
    add("--hidden", type=whole, default=896, help="hidden size of the Llama block")
    add("--intermediate", type=whole, default=4864, help="size of its feed-forward layer")
    add("--device", type=device, default="cpu", help="cpu or cuda")
    add("--threads", type=threads, help="threads of torch on the CPU; default: torch's")
    add("--compile", action="store_true", help="compile every model with torch.compile")
    args = parser.parse_args(arguments)
    args.kind = LlamaModels if args.model == LLAMA else T5Models
    known = args.kind.methods
    unknown = [name for name in args.methods or () if name not in (*known, "all")]
    if unknown:
        parser.error(f"argument --methods: {unknown[0]!r}; allowed for {args.model}: all, {', '.join(known)}")
    chosen = known if "all" in (args.methods or ()) else args.methods or args.kind.default
    args.methods = list(dict.fromkeys(chosen))
    return args


class Contestants:
    """The trained models of one dtype, and the LoRAs that each is compared with.

    trained: name -> model.
    references: name -> the names of LoRA of rank R, of equal parameters and of equal matrix rank; a name that is not in
        `trained` says why there is none.
    """

    def __init__(self, args: argparse.Namespace, dtype: torch.dtype):
        self.args, self.models = args, args.kind(args, dtype)
        self.trained: dict[str, Trained] = {}
        self.references: dict[str, tuple[str, str, str]] = {}
        for name in args.methods:
            self._add(name, self.models.method(name))
            targets, rank = self.models.targets(name), matrix_rank(self.trained[name].model)
            first = self._lora(args.rank, targets)
            equal = round(self.trained[name].count * args.rank / self.trained[first].count)
            by_rank = "-" if rank is None else "full" if rank[1] else self._lora(rank[0], targets)
            self.references[name] = first, self._lora(max(1, equal), targets), by_rank

    def _add(self, name: str, model: torch.nn.Module) -> None:
        self.trained[name] = Trained(model, self.models.loss, self.args.device, self.args.compile)

    def _lora(self, rank: int, targets) -> str:
        """Return the name of a LoRA, building it if it is not there yet; "-" if it could be any matrix."""
        if rank >= self.models.full_rank:
            return "-"
        name = f"peft LoRA r{rank}{self.models.label(targets)}"
        if name not in self.trained:
            self._add(name, self.models.lora(rank, targets))
            self.references[name] = self._lora(self.args.rank, targets), "-", "-"
        return name

    def measure(self) -> dict[str, list[float]]:
        """Return the seconds of each model in each round."""
        seconds: dict[str, list[float]] = {name: [] for name in self.trained}
        for number in range(self.args.rounds + 2):
            for name in random.sample([*seconds], len(seconds)):
                taken = self.trained[name].step()
                if number >= 2:  # the first steps allocate, choose and compile
                    seconds[name].append(taken)
        return seconds


def measured(dtype: str, args: argparse.Namespace) -> Iterator[list[str]]:
    """The cells of COLUMNS for each model of one dtype: LoRAs first, then the methods in their order."""
    contestants = Contestants(args, getattr(torch, dtype))
    seconds = contestants.measure()
    memory = {name: (each.saved_bytes(), each.peak_bytes()) for name, each in contestants.trained.items()}
    for name in sorted(seconds, key=args.methods.__contains__):
        first, *others = contestants.references[name]
        low, middle, high = quartiles(ratios(seconds, name, first))
        cells = [f"{contestants.trained[name].count:,}", f"{1000 * median(seconds[name]):.1f}", f"{middle:.2f}"]
        cells.append(f"{low:.2f} .. {high:.2f}")
        for other in others:
            rank = other.removeprefix("peft LoRA ").split(" ")[0]
            known = other in seconds
            cells.append(f"{median(ratios(seconds, name, other)):.2f} ({rank})" if known else other)
        for found, reference in zip(memory[name], memory[first], strict=True):
            cells += ["-", "-"] if found is None else [f"{found / 2**20:.1f}", f"{found / reference:.2f}"]
        yield [dtype, name, *cells]


def ratios(seconds: dict[str, list[float]], name: str, reference: str) -> list[float]:
    """The ratio of the times of two models in each round."""
    return [own / other for own, other in zip(seconds[name], seconds[reference], strict=True)]


def quartiles(values: list[float]) -> list[float]:
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def main(args: argparse.Namespace) -> None:
    load_peft()
    if args.threads:
        torch.set_num_threads(args.threads)
    target = "" if args.model == LLAMA else f" and {args.target}"
    how = ", compiled" if args.compile else ""
    where = "cuda" if args.device == "cuda" else f"cpu, threads: {torch.get_num_threads()}"
    print(f"{args.model}, {args.rows} x {args.length}{target} tokens, {where}{how}")
    print(ROW.format(*COLUMNS))
    for dtype in args.dtypes:
        for cells in measured(dtype, args):
            print(ROW.format(*cells), flush=True)


if __name__ == "__main__":
    given = parse(sys.argv[1:])
    sys.exit(status_of(lambda: main(given)))
