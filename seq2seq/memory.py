"""The memory of one training step, layer by layer and at its peak, counted as torch allocates and frees storages."""

import copy
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.autograd.graph import register_multi_grad_hook, saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.errors import ConfigError

COLUMNS = ("parameters", "gradients", "optimizer_state", "saved_activations", "forward_extra", "backward_extra")


@dataclass
class MemoryReport:
    """The result of `measure_memory`, in bytes, summed over all devices; `to_dict()` returns it as plain numbers.

    peak: the most bytes alive at once: parameters, buffers, optimizer state, batch, and all that the step allocated.
    total: {column: bytes}, the sum over layers; for the extras, the maximum.
    layers: name -> {column: bytes}; "other" is everything outside of the layers. What several layers share counts
        once, for the first of them.
    cuda_peak: the peak of CUDA's allocator, which includes what kernels allocate internally and everything else on the
        device; None without CUDA.

    The columns:
    parameters, gradients, optimizer_state: as torch stores them.
    saved_activations: what the forward pass saves for the backward pass, without parameters and buffers.
    forward_extra, backward_extra: how far live bytes rose at most above those at the start of the layer's pass. A
        layer's backward pass begins with the gradient of its output, and ends with that of an input or when another
        layer begins.
    """

    peak: int
    total: dict[str, int]
    layers: dict[str, dict[str, int]]
    cuda_peak: int | None = None

    to_dict = asdict

    def table(self) -> list[str]:
        """Return the lines of a table in MiB."""
        rows = {**self.layers, "sum, or largest extra": self.total, f"peak: {self.peak / 2**20:.3f}": {}}
        cells = {n: "".join(f"{row[c] / 2**20:{len(c) + 2}.3f}" for c in row) for n, row in rows.items()}
        return ["MiB".ljust(22) + "".join(f"  {c}" for c in COLUMNS), *(f"{n:22}{line}" for n, line in cells.items())]


def measure_memory(model: nn.Module, step: Callable, optimizer=None, layers: Mapping | None = None) -> MemoryReport:
    """Measure the memory of a training step of `model`, in its current mode, and undo the step.

    step: runs one forward pass and returns the loss, a tensor of one element.
    optimizer: makes the step run twice; the second run is measured, as the optimizer has its state only then.
    layers: name -> module of the model, none inside another; by default `blocks(model)`.
    Raises ConfigError for any other loss or layers.

    Sparse tensors are not counted. CPU and CUDA are counted alike, but run different kernels: dropout's mask holds
    floats on a CPU, booleans on CUDA. Parameters, gradients, buffers, optimizer and torch's random state are restored;
    CUDA's peak statistics are reset.
    """
    layers = blocks(model) if layers is None else layers
    states, groups = (optimizer.state, optimizer.param_groups) if optimizer else ({}, [])
    owners = _owners(model, layers, groups)
    cuda = {parameter.device for parameter in owners if parameter.device.type == "cuda"}
    with torch.random.fork_rng(cuda, device_type="cuda"), _restoring(model, owners, states, groups):
        for _ in range(2 if optimizer else 1):
            for device in cuda:
                torch.cuda.reset_peak_memory_stats(device)
            report = _measure_step(model, step, optimizer, states, layers, owners)
        report.cuda_peak = sum(map(torch.cuda.max_memory_allocated, cuda)) if cuda else None
    return report


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """Return the entries of the model's outermost ModuleLists by name, such as "encoder.block.0"."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    outer = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    return {f"{name}.{number}": block for name in outer for number, block in lists[name].named_children()}


def _measure_step(model, step, optimizer, states, layers, owners) -> MemoryReport:
    rows = defaultdict(Counter)  # rows[layer][column] in bytes
    # Parameters and buffers do not count as activations.
    saved = weakref.WeakSet(tensor.untyped_storage() for tensor in (*owners, *model.buffers()))

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        rows[live.layer]["saved_activations"] += _new_bytes(tensor, saved)
        return tensor.detach()  # saving an output itself would be a reference cycle with its autograd node

    for parameter in owners:
        parameter.grad = None
    with ExitStack() as hooks, LiveBytes(rows) as live:
        for name, layer in layers.items():
            live.watch(name, layer, hooks)
        live.note([*owners, *model.buffers(), *states.values()], new=False)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = step()
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.requires_grad:
            given = f"{type(loss).__name__}{list(getattr(loss, 'shape', [])) or ''}"
            raise ConfigError(f"step must return the loss, a tensor of one element that requires grad, not {given}")
        live.enter("other", "backward_extra")
        loss.backward()
        if optimizer:
            live.enter("other", "optimizer_extra")
            optimizer.step()
    counted = weakref.WeakSet()
    for parameter, name in owners.items():
        for column, value in zip(COLUMNS, (parameter, parameter.grad, states.get(parameter)), strict=False):
            rows[name][column] += _new_bytes(value, counted)
    table = {name: {column: rows[name][column] for column in COLUMNS} for name in (*layers, "other")}
    total = {column: (max if "extra" in column else sum)(row[column] for row in table.values()) for column in COLUMNS}
    return MemoryReport(live.peak, total, table)


class LiveBytes(TorchDispatchMode):
    """Tracks every storage it sees until it is freed: `live` is the current number of bytes, `peak` the largest.

    rows: layer -> column -> bytes, where the rise of live bytes in each layer is recorded.
    """

    def __init__(self, rows: Mapping[str, Counter] | None = None):
        super().__init__()
        self.rows = defaultdict(Counter) if rows is None else rows
        self.sizes, self.live, self.peak = {}, 0, 0
        self.enter("other", "forward_extra")

    def enter(self, layer: str, column: str | None = None) -> None:
        """From now on attribute the rise of live bytes to a layer; column: default the current one."""
        if column or layer != self.layer:
            self.layer, self.column, self.start = layer, column or self.column, self.live

    def leave(self, layer: str) -> None:
        """Attribute the rise to "other" again, unless another layer was entered since."""
        if layer == self.layer:
            self.enter("other")

    def note(self, value, new: bool = True) -> None:
        """Count the tensors in `value`. new: True if those not seen before were allocated just now."""
        for storage in [tensor.untyped_storage() for tensor in _tensors(value)]:
            reference = weakref.ref(storage, self._freed)
            grown = storage.nbytes() - self.sizes.get(reference, 0)
            self.sizes[reference] = storage.nbytes()
            self.live += grown
            self.start += 0 if new else grown
        self.peak = max(self.peak, self.live)
        self.rows[self.layer][self.column] = max(self.rows[self.layer][self.column], self.live - self.start)

    def _freed(self, reference: weakref.ref) -> None:
        self.live -= self.sizes.pop(reference)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is not torch.ops.aten.lift_fresh.default:  # its argument was just created from Python numbers
            self.note((args, kwargs), new=False)
        result = func(*args, **(kwargs or {}))
        self.note(result)
        return result

    def watch(self, name: str, layer: nn.Module, hooks: ExitStack) -> None:
        """Enter and leave `layer` as its forward and backward passes begin and end, until `hooks` is closed."""

        def before(module, *inputs) -> None:
            self.enter(name)
            hooks.callback(register_multi_grad_hook(_tensors(inputs), lambda _: self.leave(name), mode="any").remove)

        def after(module, inputs, output) -> None:
            hooks.callback(register_multi_grad_hook(_tensors(output), lambda _: self.enter(name), mode="any").remove)
            if self.column == "forward_extra":  # in a backward pass it is only recomputed
                self.enter("other")

        hooks.callback(layer.register_forward_pre_hook(before, with_kwargs=True, prepend=True).remove)
        hooks.callback(layer.register_forward_hook(after).remove)


def _tensors(value) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor) and leaf.layout == torch.strided]


def _new_bytes(value, counted: weakref.WeakSet) -> int:
    """Return the bytes of the storages in `value` that are not in `counted`, and add them to it."""
    new = {storage for tensor in _tensors(value) if (storage := tensor.untyped_storage()) not in counted}
    counted.update(new)
    return sum(storage.nbytes() for storage in new)


def _owners(model: nn.Module, layers: Mapping[str, nn.Module], groups: list[dict]) -> dict[nn.Parameter, str]:
    """Return parameter -> name of the first layer that holds it, or "other". Raises ConfigError for wrong layers."""
    inside = [module for layer in layers.values() for module in layer.modules()]
    for name, layer in layers.items():
        if name == "other" or inside.count(layer) > 1 or layer not in model.modules():
            raise ConfigError(
                f"layers contains {name!r}; each must be a module of the model, not inside another, and not named other"
            )
    rest = [*model.parameters(), *(parameter for group in groups for parameter in group["params"])]
    held = [(parameter, name) for name, layer in layers.items() for parameter in layer.parameters()]
    return {**dict.fromkeys(rest, "other"), **dict(reversed(held))}


@contextmanager
def _restoring(model: nn.Module, parameters, states: dict, groups: list[dict]):
    """Restore parameters, gradients, buffers, and the optimizer's state and settings at the end."""
    attributes = [(parameter, "grad", parameter.grad) for parameter in parameters]
    attributes += [(module, *named) for module in model.modules() for named in module.named_buffers(recurse=False)]
    written = [*(parameter for parameter in parameters if parameter.requires_grad), *model.buffers()]
    values = [tensor.detach().to("cpu", copy=True) for tensor in written]  # not part of CUDA's peak
    dictionaries = [(dictionary, dict(dictionary)) for dictionary in (states, *groups)]
    states.update(zip(states, copy.deepcopy(list(states.values())), strict=True))
    try:
        yield
    finally:
        for attribute in attributes:
            setattr(*attribute)
        for dictionary, content in dictionaries:
            dictionary.clear()
            dictionary.update(content)
        with torch.no_grad():
            for tensor, value in zip(written, values, strict=True):
                tensor.copy_(value)
