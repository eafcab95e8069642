"""Measures whole training steps of tensor-train methods of peft against peft's LoRA: time and memory.

    python benchmarks/training_step.py [--dtypes float32 bfloat16] [--methods "tt_lora skewed" ..] [--rounds 15] ..

A step is forward, backward and AdamW on a Llama block, all linear layers adapted. The steps of all methods take turns,
and each round yields one ratio to LoRA's time; the table has the medians, with the quartiles of the ratios. Saved
activations are the bytes that autograd keeps for the backward pass, without parameters; the peak is that of all live
tensors during a step.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch  # noqa: E402
import transformers  # noqa: E402
from arguments import Parser, whole  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402

from seq2seq.memory import LiveBytes  # noqa: E402
from t3nsor_peft import MetaTTConfig, TTLoraConfig  # noqa: E402

DTYPES = ("float32", "bfloat16")
ROW = "{:9} {:16} {:>10} {:>9} {:>7} {:>15} {:>9} {:>6} {:>9} {:>6}"
COLUMNS = ("dtype", "method", "parameters", "ms/step", "/ LoRA", "quartiles")
COLUMNS += ("saved MiB", "/ LoRA", "peak MiB", "/ LoRA")
METHODS = {
    "lora": lambda rank: LoraConfig(r=rank, target_modules="all-linear"),
    "tt_lora skewed": lambda rank: TTLoraConfig(r=rank, target_modules="all-linear", auto_shape_mode="skewed"),
    "tt_lora square": lambda rank: TTLoraConfig(r=rank, target_modules="all-linear"),
    "meta_tt square": lambda rank: MetaTTConfig(r=rank, target_modules="all-linear"),
}


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Time training steps of tensor-train methods against LoRA.", allow_abbrev=False)
    add = parser.add_argument
    add("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="dtypes of the base model")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), help="methods to measure beside lora")
    add("--rank", type=whole, default=8, help="r of all methods")
    add("--rounds", type=whole, default=15, help="rounds in which every method does one step")
    add("--rows", type=whole, default=4, help="sequences in a batch")
    add("--length", type=whole, default=128, help="tokens of a sequence")
    add("--hidden", type=whole, default=896, help="hidden size of the block")
    add("--intermediate", type=whole, default=4864, help="size of its feed-forward layer")
    return parser.parse_args(arguments)


class Trained:
    """A model with one method, and its optimiser."""

    def __init__(self, method: str, dtype: torch.dtype, args: argparse.Namespace):
        torch.manual_seed(0)
        heads = max(1, args.hidden // 64)
        config = transformers.LlamaConfig(
            hidden_size=args.hidden,
            intermediate_size=args.intermediate,
            num_hidden_layers=1,
            num_attention_heads=heads,
            vocab_size=64,
        )
        base = transformers.LlamaModel(config).to(dtype)
        self.model = get_peft_model(base, METHODS[method](args.rank)).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)
        self.x = torch.randn(args.rows, args.length, args.hidden).to(dtype).requires_grad_()

    def loss(self) -> torch.Tensor:
        return self.model(inputs_embeds=self.x).last_hidden_state.float().square().mean()

    def step(self) -> float:
        """One step; returns its seconds."""
        start = time.perf_counter()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start

    def saved_bytes(self) -> int:
        """Bytes of all storages that a forward pass saves for the backward pass, but for those of parameters."""
        own = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        saved: dict[int, int] = {}
        kept = []  # so that no storage is freed, and its address used again

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                saved[storage.data_ptr()] = storage.nbytes()
                kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self.loss()
        return sum(saved.values())

    def peak_bytes(self) -> int:
        """The most bytes of live tensors during one step, parameters and the optimiser's state included."""
        state = [tensor for state in self.optimizer.state.values() for tensor in state.values()]
        with LiveBytes() as memory:
            memory.note([*self.model.parameters(), *self.model.buffers(), *state, self.x], new=False)
            self.step()
        return memory.peak


def compare(dtype: str, args: argparse.Namespace) -> None:
    """Print the rows of one dtype."""
    models = {method: Trained(method, getattr(torch, dtype), args) for method in dict.fromkeys(("lora", *args.methods))}
    seconds: dict[str, list[float]] = {method: [] for method in models}
    for number in range(args.rounds + 2):
        for method, model in models.items():
            taken = model.step()
            if number >= 2:  # the first steps allocate and choose
                seconds[method].append(taken)
    lora = models["lora"].saved_bytes(), models["lora"].peak_bytes()
    for method, model in models.items():
        ratios = [own / other for own, other in zip(seconds[method], seconds["lora"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        cells = [f"{1000 * statistics.median(seconds[method]):.1f}", f"{middle:.2f}", f"{low:.2f} .. {high:.2f}"]
        for found, reference in zip((model.saved_bytes(), model.peak_bytes()), lora, strict=True):
            cells += [f"{found / 2**20:.1f}", f"{found / reference:.2f}"]
        print(ROW.format(dtype, method, f"{sum(p.numel() for p in model.parameters):,}", *cells), flush=True)


def main(args: argparse.Namespace) -> None:
    print(f"Llama block {args.hidden}/{args.intermediate}, {args.rows} x {args.length} tokens, r={args.rank}")
    print(ROW.format(*COLUMNS))
    for dtype in args.dtypes:
        compare(dtype, args)


if __name__ == "__main__":
    main(parse(sys.argv[1:]))
