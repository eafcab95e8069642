"""Measures the memory of one training step: our branches against peft's LoRA.

    python benchmarks/training_memory.py [--model t5-base] [--batch 8] [--source 64] [--target 8] [--device cpu] ..

Each contestant, a frozen T5 with random weights and branches on wi and wo, takes one step (forward, backward, AdamW) in
its own process. Columns, in MB (10^6 bytes): memory before the step; the peaks in forward, backward and optimiser, and
the highest of them; the peak resident memory of the process; and the ratio of the peak to that of the first contestant,
by default peft. On a CPU, live tensor storages are counted after each operation; on a GPU,
torch.cuda.max_memory_allocated is reported. "skewed" is the shape with which a branch has as many parameters as LoRA.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
import transformers  # noqa: E402
from arguments import Parser, whole  # noqa: E402
from merge_drift import load_peft  # noqa: E402
from merged_inference import MODELS, device, model_config, status_of  # noqa: E402
from tt_linear_malloc import THRESHOLDS  # noqa: E402

from adapters import AdapterConfig  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from seq2seq.memory import LiveBytes  # noqa: E402
from third_party.models.t5 import T5ForConditionalGeneration  # noqa: E402
from utils import modify_model_after_init  # noqa: E402

CONTESTANTS = {
    "peft LoRA": None,
    "use_TTLoRA": {"use_TTLoRA": True, "tt_d": 2},
    "use_TTLoRA, skewed": {"use_TTLoRA": True, "tt_d": 2, "auto_shape_mode": "skewed"},
    "use_LoRA": {"use_LoRA": True},
}
COLUMNS = ("before", "forward", "backward", "optimiser", "peak", "resident")
ROW = "{:20} {:>9}  {:>8}  {:>8} {:>8} {:>9}  {:>8} {:>8}  {:>7}"


def take_peak(memory: LiveBytes | None) -> int:
    """Return the peak since the last call, and reset it; memory: None on a GPU."""
    if memory is not None:
        peak, memory.peak = memory.peak, memory.live
        return peak
    peak = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return peak


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Measure memory of a training step, ours and peft's LoRA.", allow_abbrev=False)
    add = parser.add_argument
    add("--model", choices=MODELS, default="t5-base")
    add("--batch", type=whole, default=8)
    add("--source", type=whole, default=64, help="length of the inputs in tokens")
    add("--target", type=whole, default=8, help="length of the labels in tokens")
    add("--rank", type=whole, default=8, help="tt_rank and lora_rank")
    add("--device", type=device, default="cpu", help="cpu or cuda")
    names = {"nargs": "+", "choices": list(CONTESTANTS), "default": list(CONTESTANTS)}
    add("--contestants", help="contestants to measure, in this order", **names)
    add("--step-of", choices=list(CONTESTANTS), help="measure one contestant in this process; prints bytes as JSON")
    return parser.parse_args(arguments)


def build(name: str, args) -> torch.nn.Module:
    """Build a contestant, a frozen T5 with trainable branches."""
    config, keys = model_config(args.model), CONTESTANTS[name]
    if keys is None:
        peft = load_peft()
        lora = peft.LoraConfig(r=args.rank, lora_alpha=args.rank, target_modules=["wi", "wo"])
        return peft.get_peft_model(transformers.T5ForConditionalGeneration(config), lora)
    adapter_config = AdapterConfig(**keys, tt_rank=args.rank, lora_rank=args.rank)
    return modify_model_after_init(T5ForConditionalGeneration(config), adapter_config)


def step_of(args) -> dict[str, int]:
    """Take one training step with a contestant; returns memory in bytes and the number of trainable parameters."""
    model = build(args.step_of, args).to(args.device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    sizes = {"input_ids": (args.batch, args.source), "labels": (args.batch, args.target)}
    batch = {key: torch.randint(2, model.config.vocab_size, size, device=args.device) for key, size in sizes.items()}
    tensors = [*model.parameters(), *model.buffers(), *batch.values()]
    with nullcontext() if args.device == "cuda" else LiveBytes() as memory:
        if memory is not None:
            memory.note(tensors, new=False)
        found = {"before": take_peak(memory)}
        loss = model(**batch).loss
        found["forward"] = take_peak(memory)
        loss.backward()
        found["backward"] = take_peak(memory)
        optimizer.step()
        found["optimiser"] = take_peak(memory)
    found["peak"] = max(found.values())
    found["trained"] = sum(parameter.numel() for parameter in trained)
    return found | {"resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def compare(args, arguments: list[str]) -> None:
    """Measure each contestant in its own process, and print the table.

    The processes map each large block separately, so that freed memory returns to the system at once.
    """
    print(f"{args.model}, float32, {args.device}: batch {args.batch}, source {args.source}, target {args.target}")
    print(ROW.format(f"rank {args.rank}", "trained", *COLUMNS, "ratio"))
    environment, reference = os.environ | dict.fromkeys(THRESHOLDS, "65536"), None
    for name in args.contestants:
        command = [sys.executable, __file__, *arguments, "--step-of", name]
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        if process.returncode:
            last = process.stderr.strip().rpartition("\n")[2]
            raise ConfigError(f"{name}: {last.removeprefix('error: ') or process.returncode}")
        found = json.loads(process.stdout)
        reference = reference or found["peak"]
        cells = [f"{found[column] / 1e6:.1f}" for column in COLUMNS]
        print(ROW.format(name, found["trained"], *cells, f"{found['peak'] / reference:.4f}"), flush=True)


if __name__ == "__main__":
    given = parse(sys.argv[1:])
    sys.exit(status_of(lambda: print(json.dumps(step_of(given))) if given.step_of else compare(given, sys.argv[1:])))
