"""Are the numbers of a device right? The checks of gpu.py: the engine, merging, and whole T5s with a method each.

Operands are rounded to the dtype first, and what the device computes of them is compared with float64.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from itertools import product
from pathlib import Path

import torch
from merged_inference import model_config
from torch.nn import functional
from tt_linear_checks import TOLERANCE, reason, relative_error

from common.json_settings import read_file
from t3nsor import Plan, linear_with_branch, random_matrix, tt_matmul
from t3nsor.contraction.engine import contraction_for
from t3nsor.contraction.plans import candidates
from t3nsor.shapes import auto_shape, skewed_shape
from third_party.models.t5 import T5ForConditionalGeneration
from utils import get_adapter_config, modify_model_after_init

CONFIGS = Path(__file__).parents[1] / "configs"
METHODS = ("tt_lora", "tt_adapter", "lora", "adapters", "compacter", "prefix_tuning", "bitfit", "intrinsic")
MERGED = ("tt_lora", "lora")
DTYPES = ("float32", "bfloat16", "float16")
QUICK = (((24, 36), 1), ((24, 36), 33))
FULL = (((768, 3072), 1), ((768, 3072), 16), ((768, 3072), 512), ((24, 36), 70_000))  # CUDA's batches end at 65,535
DEPTH = 5  # how much more a T5's rounding errors may be than those of a layer: its layers add theirs up
Row = tuple[str, dict[str, object]]


class Tally:
    """The cases of one line: how many there are, the largest error of one, and what is wrong with the first bad one."""

    def __init__(self, allowed: float):
        self.allowed, self.cases, self.failed, self.largest, self.first = allowed, 0, 0, 0.0, ""

    def add(self, name: str, error: Callable[[], float]) -> None:
        """Add a case. error: returns its error, or raises."""
        self.cases += 1
        try:
            found = error()
            self.largest = max(self.largest, found)
            wrong = "" if found <= self.allowed else f"error {found:.1e}"
        except Exception as raised:  # of any kind: the other cases still say something
            wrong = reason(raised)
        if wrong:
            self.failed += 1
            self.first = self.first or f"{name}: {wrong}"

    def row(self, **named: str) -> dict[str, object]:
        cells = {"cases": self.cases, "largest error": self.largest, "allowed": self.allowed}
        return {**named, **cells, "failed": self.failed, "first failure": self.first}


def checks(device: str, quick: bool) -> Iterator[Row]:
    """Lines of all checks, the engine's first."""
    for dtype in DTYPES:
        for kind, tally in of_engine(device, dtype, quick).items():
            yield "The engine against float64", tally.row(dtype=dtype, plans=kind)
    for dtype in DTYPES:
        yield "Merged and parallel branches", of_merging(device, dtype, quick).row(dtype=dtype)
    for dtype in (*DTYPES, "autocast"):
        for method in METHODS[: 2 if quick else None]:
            tally = Tally(DEPTH * TOLERANCE["bfloat16" if dtype == "autocast" else dtype])
            tally.add(method, lambda method=method, dtype=dtype: t5_error(method, device, dtype, quick))
            yield "Loss and gradients of a T5 against the CPU's in float64", tally.row(dtype=dtype, method=method)


def of_engine(device: str, dtype: str, quick: bool) -> dict[str, Tally]:
    """The kinds of plans, alone and beside a dense weight: values, and gradients of all operands."""
    found: dict[str, Tally] = {}
    for (sizes, rows), ring, beside in product(QUICK if quick else FULL, (False, True), (False, True)):
        for shape in (skewed_shape(*sizes), *(tuple(auto_shape(n, d) for n in sizes) for d in (2, 3))):
            layer = Layer(shape, ring, beside, rows, device, dtype)
            for strategy in layer.strategies():
                kind = strategy if isinstance(strategy, str) else strategy.kind
                tally = found.setdefault(f"{kind}, {'beside' if beside else 'alone'}", Tally(TOLERANCE[dtype]))
                case = f"{'ring' if ring else 'train'} of {shape}, {rows} rows, {strategy}"
                tally.add(case, partial(layer.error, strategy))
    return found


class Layer:
    """Random operands of the engine, and what float64 makes of them.

    shape: ((n_1, .., n_d), (m_1, .., m_d)).
    ring: True for a tensor ring.
    beside: True for a branch beside a dense weight (out, in).

    The cores are float32 where x is in half precision, as trained ones are.
    """

    def __init__(self, shape, ring: bool, beside: bool, rows: int, device: str, dtype: str):
        self.dtype, self.beside = getattr(torch, dtype), beside
        generator = torch.Generator().manual_seed(0)
        self.tt = random_matrix(shape, 4, math.prod(shape[0]) ** -0.5, ring=ring, generator=generator)
        n, m = self.tt.shape
        drawn = [torch.randn(size, generator=generator) for size in ((rows, n), (rows, m), (m, n), (m,))]
        drawn[2] *= n**-0.5
        self.x, self.g, self.weight, self.bias = (each.to(device, self.dtype) for each in drawn)
        self.tt = self.tt.to(self.dtype).to(device, torch.float32)
        self.wanted = self.results(self.dense, torch.float64, torch.float64)

    def strategies(self) -> list[str | Plan]:
        """Those by name, and every plan there is for a layer of this shape."""
        spec = contraction_for(self.x, self.tt.cores, self.tt.closed, self.beside).spec
        return ["auto", *dict.fromkeys((*candidates(spec), *candidates(spec, backward=True)))]

    def error(self, strategy: str | Plan) -> float:
        """The largest relative error of the values and gradients with a strategy."""
        return relative_error(self.results(partial(self.engine, strategy), self.dtype, torch.float32), self.wanted)

    def results(self, product: Callable, dtype: torch.dtype, of_cores: torch.dtype) -> list[torch.Tensor]:
        """y and the gradients of x, the bias, the cores and the weight."""
        x, bias, weight = (each.to(dtype, copy=True).requires_grad_() for each in (self.x, self.bias, self.weight))
        tt = deepcopy(self.tt).to(of_cores)
        cores = [core.requires_grad_() for core in tt.cores]
        y = product(x, tt, bias, weight)
        needed = [x, bias, *cores, *([weight] if self.beside else [])]
        return [y.detach(), *torch.autograd.grad(y, needed, self.g.to(dtype))]

    def engine(self, strategy: str | Plan, x, tt, bias, weight) -> torch.Tensor:
        if self.beside:
            return linear_with_branch(x, weight, tt, scale=0.7, bias=bias, strategy=strategy)
        return tt_matmul(x, tt, strategy, bias=bias)

    def dense(self, x, tt, bias, weight) -> torch.Tensor:
        matrix = weight + 0.7 * tt.full().T if self.beside else tt.full().T
        return functional.linear(x, matrix, bias)


def small_t5(method: str, dtype: torch.dtype, quick: bool) -> torch.nn.Module:
    """A T5 of random weights of this dtype on the CPU, with a method whose trained tensors are off their start."""
    torch.manual_seed(0)
    sizes = {"num_layers": 1, "vocab_size": 128, "dropout_rate": 0.0}
    backbone = T5ForConditionalGeneration(model_config("tiny" if quick else "t5-small", **sizes)).to(dtype)
    model = modify_model_after_init(backbone, get_adapter_config(read_file(CONFIGS / f"{method}.json")))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return model


def tokens(device: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    drawn = {"input_ids": (4, 12), "labels": (4, 5)}
    return {name: torch.randint(2, 128, size, generator=generator).to(device) for name, size in drawn.items()}


def of_merging(device: str, dtype: str, quick: bool) -> Tally:
    """The logits of merged and of parallel branches, on the device."""
    tally = Tally(DEPTH * TOLERANCE[dtype])
    for method in MERGED:
        model = small_t5(method, getattr(torch, dtype), quick).to(device)

        @torch.no_grad()
        def error(model=model) -> float:
            parallel, merged = model.train()(**tokens(device)).logits, model.eval()(**tokens(device)).logits
            return relative_error([merged], [parallel])

        tally.add(method, error)
    return tally


def t5_error(method: str, device: str, dtype: str, quick: bool) -> float:
    """The larger relative error of the loss, and of all gradients as one vector."""
    autocast = dtype == "autocast"
    model = small_t5(method, torch.float32 if autocast else getattr(torch, dtype), quick).train()
    with torch.autocast(device, torch.bfloat16) if autocast else nullcontext():
        found = loss_and_gradients(deepcopy(model).to(device), device)
    return relative_error([each.cpu() for each in found], loss_and_gradients(model.double(), "cpu"))


def loss_and_gradients(model: torch.nn.Module, device: str) -> list[torch.Tensor]:
    loss = model(**tokens(device)).loss
    gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    return [loss.detach(), torch.cat([gradient.flatten().double() for gradient in gradients])]
