"""Measures the cost of branches in generation, merged and parallel, relative to plain transformers.

    python benchmarks/merged_inference.py [--model t5-base] [--batch 8] [--source 64] [--new_tokens 16] ..

All contestants share the memory of one random backbone and take turns in one process, in a new random order each round.
Branches start from zero, so all contestants must generate the same tokens; this is checked. Columns: the median time of
`generate` in seconds; the median and quartiles of its ratio to plain transformers in the same round; and the median of
that ratio for CPU time, which excludes waiting for other processes. "plain, again" is plain transformers a second time:
its deviation from 1 is the noise of the machine.
"""

import argparse
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
import transformers  # noqa: E402
from arguments import Parser, whole  # noqa: E402
from tt_linear_timing import clock  # noqa: E402

from adapters import AdapterConfig  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from third_party.models.t5 import T5Config, T5ForConditionalGeneration  # noqa: E402
from third_party.models.t5.configuration_t5 import SHAPES  # noqa: E402
from utils import modify_model_after_init  # noqa: E402

TINY = {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2, "vocab_size": 128}
MODELS = ("tiny", *SHAPES)
PLAIN = "plain transformers"
BRANCHES = {
    "TT-LoRA, merged": {"use_TTLoRA": True},
    "TT-LoRA, parallel": {"use_TTLoRA": True, "merge_at_eval": False},
    "LoRA, merged": {"use_LoRA": True},
    "LoRA, parallel": {"use_LoRA": True, "merge_at_eval": False},
}


def model_config(name: str, **overrides) -> T5Config:
    """The configuration of a published T5, or of a tiny one for tests."""
    if name == "tiny":
        return T5Config(**{"decoder_start_token_id": 0, **TINY, **overrides})
    return T5Config.from_shape(name, **overrides)


def device(text: str) -> str:
    if text not in ("cpu", "cuda") or (text == "cuda" and not torch.cuda.is_available()):
        raise argparse.ArgumentTypeError(f"{text!r} must be cpu, or cuda if torch finds a GPU")
    return text


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Time generation with branches against plain transformers.", allow_abbrev=False)
    add = parser.add_argument
    add("--model", choices=MODELS, default="t5-base")
    add("--batch", type=whole, default=8)
    add("--source", type=whole, default=64, help="length of the inputs in tokens")
    add("--new_tokens", type=whole, default=16, help="number of tokens to generate")
    add("--rounds", type=lambda text: whole(text, 2), default=7, help="number of timings of each contestant")
    add("--rank", type=whole, default=8, help="tt_rank and lora_rank")
    add("--tt_d", type=whole, default=2, help="number of cores")
    add("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    add("--device", type=device, default="cpu", help="cpu or cuda")
    return parser.parse_args(arguments)


def contestants(args) -> dict[str, torch.nn.Module]:
    """All models by name, in evaluation mode."""
    torch.manual_seed(0)
    config = model_config(args.model)
    plain = transformers.T5ForConditionalGeneration(config).to(args.device, getattr(torch, args.dtype)).eval()
    models = {PLAIN: plain, "plain, again": plain}
    for name, keys in BRANCHES.items():
        with torch.device("meta"):
            model = T5ForConditionalGeneration(config)
        model.load_state_dict(plain.state_dict(), assign=True)
        adapter_config = AdapterConfig(tt_rank=args.rank, tt_d=args.tt_d, lora_rank=args.rank, **keys)
        models[name] = modify_model_after_init(model, adapter_config).eval()
    return models


def generation(model: torch.nn.Module, args) -> Callable[[], torch.Tensor]:
    """A function that greedily generates exactly `args.new_tokens` tokens."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randint(2, model.config.vocab_size, (args.batch, args.source), generator=generator).to(args.device)
    options = {"attention_mask": torch.ones_like(source), "do_sample": False}
    options |= {"min_new_tokens": args.new_tokens, "max_new_tokens": args.new_tokens}
    return torch.no_grad()(lambda: model.generate(source, **options))


def check_tokens(runs: dict[str, Callable]) -> None:
    """Run each contestant once, as a warm-up. Raises ConfigError unless all generate the same tokens."""
    tokens = {name: run() for name, run in runs.items()}
    for name, found in tokens.items():
        if not torch.equal(found, tokens[PLAIN]):
            raise ConfigError(f"{name} does not generate the same tokens as {PLAIN}; timings would not be comparable")


def ratios_to_plain(measured: dict[str, list[float]], name: str) -> list[float]:
    """Ratio of a contestant to plain transformers in each round."""
    return [value / plain for value, plain in zip(measured[name], measured[PLAIN], strict=True)]


def measured(args) -> dict[str, list[float]]:
    """Time all contestants in turns.

    Returns, for each, the median of its seconds, that of its ratios to plain transformers, their quartiles, and the
    median of those of CPU time.
    """
    runs = {name: generation(model, args) for name, model in contestants(args).items()}
    check_tokens(runs)
    seconds, busy = {name: [] for name in runs}, {name: [] for name in runs}
    for _ in range(args.rounds):
        for name in random.sample([*runs], len(runs)):
            start = time.process_time()
            seconds[name].append(clock(runs[name], args.device))
            busy[name].append(time.process_time() - start)
    found = {}
    for name, values in seconds.items():
        ratios, cpu = ratios_to_plain(seconds, name), median(ratios_to_plain(busy, name))
        low, _, high = quantiles(ratios, n=4, method="inclusive")
        found[name] = [median(values), median(ratios), low, high, cpu]
    return found


def compare(args) -> None:
    """Print the table."""
    found = measured(args)
    print(f"{args.model}, {args.dtype}, {args.device}: {args.batch} x {args.source} tokens, {args.new_tokens} new ones")
    print(f"{'':20} {'seconds':>8}  {'to plain':>8}  {'quartiles':>13}  {'CPU time':>8}")
    for name, (seconds, ratio, low, high, cpu) in found.items():
        print(f"{name:20} {seconds:8.4f}  {ratio:8.3f}  {low:6.3f} {high:6.3f}  {cpu:8.3f}")


def status_of(work: Callable[[], None]) -> int:
    """Run `work` and return its exit status; a ConfigError is printed in one line."""
    try:
        work()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    given = parse(sys.argv[1:])
    sys.exit(status_of(lambda: compare(given)))
