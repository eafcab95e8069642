"""The contestants of tt_linear.py: layers given by tensor-train cores, as t3nsor and its peers compute them.

"alone" is x @ W, W the matrix of the cores; "beside" is x @ weight^T + x @ W, weight dense and frozen. Every contestant
of a cell works on the same data; those with our cores must give our values and gradients.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from t3nsor.contraction.ops import linear_with_branch, tt_matmul
from t3nsor.initializers import random_matrix
from t3nsor.shapes import auto_shape, skewed_shape

MODES = ("forward", "forward+backward")
BEST_OF = {
    "alone": ("chain", "full", "tensorly-torch factorized", "tensorly-torch reconstructed"),
    "beside": ("frozen",),
}  # contestants that ours is compared with
PLAIN = ("chain", "matmuls", "matmuls, kept")  # formulations beside a frozen linear that users write


@dataclass(frozen=True)
class Cell:
    """One cell of the grid: a layer in_features -> out_features with cores of rank `rank`, applied to `rows` rows.

    d: number of cores of near-square shapes, or "skewed" for two cores of the skewed one.
    """

    in_features: int
    out_features: int
    dtype: str
    d: int | str
    rank: int
    rows: int

    def __str__(self) -> str:
        return f"{self.in_features}x{self.out_features} {self.dtype} d{self.d} r{self.rank} {self.rows} rows"

    @property
    def shape(self) -> tuple[list[int], list[int]]:
        if self.d == "skewed":
            return skewed_shape(self.in_features, self.out_features)
        return auto_shape(self.in_features, self.d), auto_shape(self.out_features, self.d)


class Data:
    """The operands of a cell, shared by its contestants.

    x: (rows, in), needs a gradient.
    g: (rows, out), the gradient of the result.
    weight: (out, in), frozen.
    tt: the cores, trained.
    """

    def __init__(self, cell: Cell, device: str):
        dtype, n, m = getattr(torch, cell.dtype), cell.in_features, cell.out_features
        options = {"dtype": dtype, "device": device, "generator": torch.Generator(device).manual_seed(0)}
        self.cell = cell
        self.x = torch.randn(cell.rows, n, **options).requires_grad_()
        self.g = torch.randn(cell.rows, m, **options)
        self.weight = torch.randn(m, n, **options) * n**-0.5
        self.tt = random_matrix(cell.shape, cell.rank, n**-0.5, trainable=True, **options)
        self.skewed = random_matrix(skewed_shape(n, m), cell.rank, n**-0.5, trainable=True, **options)

    @property
    def modes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """((n_1, .., n_d), (m_1, .., m_d))"""
        return self.tt.raw_shape

    def cores(self, out_first: bool = False) -> list[nn.Parameter]:
        """Copies of the cores, for `out_first` of the shape (r_{k-1}, m_k, n_k, r_k)."""
        cores = [core.detach().transpose(1, 2) if out_first else core.detach() for core in self.tt.cores]
        return [nn.Parameter(core.clone(memory_format=torch.contiguous_format)) for core in cores]


@dataclass
class Contestant:
    """A layer to time.

    forward: x (rows, in) -> (rows, out).
    trained: the tensors that need a gradient besides x.
    comparable: True if it computes the same as ours.
    out_first: True if its cores are (r_{k-1}, m_k, n_k, r_k).
    """

    forward: Callable[[torch.Tensor], torch.Tensor]
    trained: list[torch.Tensor] = field(default_factory=list)
    comparable: bool = True
    out_first: bool = False

    def results(self, data: Data) -> tuple[list[torch.Tensor], int]:
        """Return [y, the gradient of x, those of the trained tensors] and the bytes saved for the backward pass.

        Gradients of cores are (r_{k-1}, n_k, m_k, r_k). Saved bytes include x, but not parameters or the frozen weight.
        """
        kept = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            y = self.forward(data.x)
        for tensor in (data.weight, *self.trained):
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        dx, *gradients = torch.autograd.grad(y, [data.x, *self.trained], data.g)
        gradients = [g.transpose(1, 2) if self.out_first else g for g in gradients]
        return [y.detach(), dx, *gradients], sum(storage.nbytes() for storage in kept.values())

    def run(self, data: Data, mode: str) -> Callable[[], object]:
        """The function to time."""
        if mode == "forward+backward":
            return lambda: torch.autograd.grad(self.forward(data.x), [data.x, *self.trained], data.g)
        return torch.no_grad()(lambda: self.forward(data.x))


def tensordot_chain(x: torch.Tensor, cores) -> torch.Tensor:
    """x (rows, in) -> (rows, out), one tensordot per core, like most tensor-train layers."""
    state = x.reshape(len(x), *(core.shape[1] for core in cores), 1)
    for core in cores:
        state = torch.tensordot(state, core, dims=([1, -1], [1, 0]))
    return state.reshape(len(x), -1)


class KeptChain(torch.autograd.Function):
    """x weight^T + x W, one GEMM for each core, with the intermediate results kept for the backward pass."""

    @staticmethod
    def forward(ctx, x, weight, *cores):
        states, state = [], x
        for core, rest in zip(cores, _rest(cores, 1), strict=True):
            state = _modes_last(state, core.shape[0] * core.shape[1], rest)
            states.append(state)
            state = _modes_first(state @ core.flatten(0, 1).flatten(1), rest)
        ctx.save_for_backward(weight, *cores, *states)
        return functional.linear(x, weight).add_(state.view(len(x), -1))

    @staticmethod
    def backward(ctx, g):
        weight, *saved = ctx.saved_tensors
        cores, states = saved[: len(saved) // 2], saved[len(saved) // 2 :]
        d, found = g, []
        for core, rest, state in zip(cores[::-1], _rest(cores, 1)[::-1], states[::-1], strict=True):
            d = _modes_last(d, core.shape[2] * core.shape[3], rest)
            found.insert(0, (state.t() @ d).view(core.shape))
            d = _modes_first(d @ core.flatten(0, 1).flatten(1).t(), rest)
        return g @ weight + d.view(len(g), -1), None, *found


def matmul_chain(x: torch.Tensor, cores) -> torch.Tensor:
    """x (rows, in) -> (rows, out), one GEMM for each core, differentiated by autograd."""
    state = x
    for core, rest in zip(cores, _rest(cores, 1), strict=True):
        state = _modes_last(state, core.shape[0] * core.shape[1], rest)
        state = _modes_first(state @ core.flatten(0, 1).flatten(1), rest)
    return state.view(len(x), -1)


def _rest(cores, axis: int) -> list[int]:
    """The numbers after the modes of each core in a row."""
    return [math.prod(core.shape[axis] for core in cores[k + 1 :]) for k in range(len(cores))]


def _modes_last(state: torch.Tensor, modes: int, rest: int) -> torch.Tensor:
    """(.., modes, rest) -> (.. * rest, modes)"""
    return state.reshape(-1, modes, rest).transpose(1, 2).reshape(-1, modes)


def _modes_first(state: torch.Tensor, rest: int) -> torch.Tensor:
    """(.. * rest, modes) -> (.., modes, rest)"""
    return state.view(-1, rest, state.shape[1]).transpose(1, 2).contiguous()


def full_matrix(cores) -> torch.Tensor:
    """The matrix (in, out) by one einsum over all cores."""
    d = len(cores)
    bonds, inputs, outputs = (list(range(k * (d + 1), k * (d + 1) + d + 1)) for k in range(3))
    operands = [part for k in range(d) for part in (cores[k], [bonds[k], inputs[k], outputs[k], bonds[k + 1]])]
    dense = torch.einsum(*operands, [*inputs[:d], *outputs[:d]])
    return dense.reshape(dense.shape[:d].numel(), -1)


def ours(data):
    return Contestant(lambda x: tt_matmul(x, data.tt), list(data.tt.cores))


def chain(data):
    cores = data.cores()
    return Contestant(lambda x: tensordot_chain(x, cores), cores)


def full(data):
    cores = data.cores()
    return Contestant(lambda x: x @ full_matrix(cores), cores)


def tensorly_torch(data, implementation):
    import tltorch

    inputs, outputs = data.modes
    weight = tltorch.BlockTT(data.cores(out_first=True), (outputs, inputs), data.tt.ranks)
    layer = tltorch.FactorizedLinear(inputs, outputs, bias=False, factorization=weight, implementation=implementation)
    return Contestant(layer, list(layer.weight.factors), out_first=True)


def torchtt(data):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing C++ solvers, which are not used here
        from torchtt import TT

    cores = data.cores(out_first=True)
    matrix, inputs = TT(cores), data.modes[0]
    return Contestant(lambda x: (matrix @ x.reshape(-1, *inputs)).flatten(1), cores, out_first=True)


def dense(data):
    layer = _linear(data, trained=True)
    return Contestant(layer, [layer.weight], comparable=False)


def ours_beside(data):
    return Contestant(lambda x: linear_with_branch(x, data.weight, data.tt), list(data.tt.cores))


def frozen(data):
    return Contestant(_linear(data, trained=False), comparable=False)


def chain_beside(data):
    cores = data.cores()
    return Contestant(lambda x: functional.linear(x, data.weight) + tensordot_chain(x, cores), cores)


def matmuls_beside(data):
    cores = data.cores()
    return Contestant(lambda x: functional.linear(x, data.weight) + matmul_chain(x, cores), cores)


def kept_beside(data):
    cores = data.cores()
    return Contestant(lambda x: KeptChain.apply(x, data.weight, *cores), cores)


def lora(data):
    from peft import LoraConfig, get_peft_model

    n, m = data.cell.in_features, data.cell.out_features
    rank = max(1, round(data.tt.numel() / (n + m)))
    holder = nn.ModuleDict({"linear": _linear(data, trained=False)})
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["linear"], init_lora_weights=False)
    get_peft_model(holder, config, autocast_adapter_dtype=False)
    layer = holder["linear"]
    return Contestant(layer, [p for p in layer.parameters() if p.requires_grad], comparable=False)


def ours_skewed(data):
    forward = lambda x: linear_with_branch(x, data.weight, data.skewed)  # noqa: E731
    return Contestant(forward, list(data.skewed.cores), comparable=False)


def _linear(data, trained: bool) -> nn.Linear:
    layer = nn.Linear(data.cell.in_features, data.cell.out_features, bias=False, device="meta")
    layer.weight = nn.Parameter(data.weight, requires_grad=trained)
    return layer


GROUPS = {
    "alone": {
        "ours": ours,
        "chain": chain,
        "full": full,
        "tensorly-torch factorized": lambda data: tensorly_torch(data, "factorized"),
        "tensorly-torch reconstructed": lambda data: tensorly_torch(data, "reconstructed"),
        "torchtt": torchtt,
        "dense": dense,
    },
    "beside": {
        "ours": ours_beside,
        "frozen": frozen,
        "chain": chain_beside,
        "matmuls": matmuls_beside,
        "matmuls, kept": kept_beside,
        "peft LoRA": lora,
        "ours skewed": ours_skewed,
    },
}
