"""Effective rank of the tangent kernel of each block's parameters alone, and of all of them together.

The kernel of a block is J J^T, where J has a row for each output of each input and a column for each trained parameter
of the block. The kernels of disjoint sets of parameters add up to the kernel of all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from expressivity.devices import where_float64_is
from expressivity.effective_rank import effective_rank
from expressivity.errors import ExpressivityError
from expressivity.trajectory import in_evaluation

ELSEWHERE, ALL = "elsewhere", "all"
ENTRIES = 2**29  # of the Jacobians of all blocks together: 2 GiB in float32
COLUMNS_AT_ONCE = 2**16


@dataclass(frozen=True)
class BlockKernel:
    """The tangent kernel of the trained parameters of one block.

    parameters: their number.
    measured: how many of them the kernel was computed from, a random sample if they are fewer.
    rank: effective rank of the kernel, at most the smaller of `measured` and the number of outputs of all inputs.
    trace: sum of its eigenvalues, the squared norm of J.
    """

    parameters: int
    measured: int
    rank: float
    trace: float


def block_kernels(
    network: nn.Module,
    inputs: Sequence[torch.Tensor],
    blocks: dict[str, str],
    seed: int = 0,
    entries: int = ENTRIES,
    step: Callable[[], object] = lambda: None,
) -> dict[str, BlockKernel]:
    """Measure the kernels of the trained parameters of each block, of those elsewhere, and of all.

    network: maps an input to a tensor of outputs; it runs in evaluation mode, and its mode is restored. What requires
        gradients counts as trained, if the outputs depend on it.
    inputs: one tensor each; their shapes may differ.
    blocks: name -> module of the network. A parameter that belongs to no block, or to several, is elsewhere.
    seed: seed of the samples.
    entries: the most entries of all Jacobians; blocks of more parameters than that allows are sampled.
    step: called after each input.

    Returns name -> kernel, without blocks that train nothing. Raises ExpressivityError if nothing is trained, or if a
    gradient is not finite.
    """
    groups = _used(network, inputs[0], _by_block(network, blocks))
    if not groups:
        raise ExpressivityError("the outputs of the network depend on no trained parameter")
    rows = len(inputs) * _outputs(network, inputs[0]).numel()
    most, sizes = max(1, entries // (rows * len(groups))), {name: _size(group) for name, group in groups.items()}
    columns = {name: _columns(size, most, seed) for name, size in sizes.items()}
    jacobians = _jacobians(network, inputs, groups, columns, step)
    kernels = {name: _kernel(jacobian, sizes[name]) for name, jacobian in jacobians.items()}
    measured = {name: jacobian.shape[1] for name, jacobian in jacobians.items()}
    kernels[ALL] = torch.stack(list(kernels.values())).sum(0)
    sizes[ALL], measured[ALL] = sum(sizes.values()), sum(measured.values())
    return {name: _described(kernel, sizes[name], measured[name]) for name, kernel in kernels.items()}


def _size(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _by_block(network: nn.Module, blocks: dict[str, str]) -> dict[str, list[nn.Parameter]]:
    """The trained parameters of each block, and of none or several."""
    homes: dict[nn.Parameter, set[str]] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        if parameter.requires_grad:
            home = next((block for block, module in blocks.items() if name.startswith(f"{module}.")), ELSEWHERE)
            homes.setdefault(parameter, set()).add(home)
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in (*blocks, ELSEWHERE)}
    for parameter, names in homes.items():
        groups[names.pop() if len(names) == 1 else ELSEWHERE].append(parameter)
    return groups


def _used(network: nn.Module, x: torch.Tensor, groups: dict[str, list[nn.Parameter]]) -> dict[str, list[nn.Parameter]]:
    """The groups without parameters that the outputs do not depend on, such as those of other tasks."""
    everything = [parameter for parameters in groups.values() for parameter in parameters]
    outputs = _outputs(network, x)
    if not everything or not outputs.requires_grad:
        return {}
    gradients = torch.autograd.grad(outputs.sum(), everything, allow_unused=True)
    reached = {p for p, gradient in zip(everything, gradients, strict=True) if gradient is not None}
    kept = {name: [p for p in parameters if p in reached] for name, parameters in groups.items()}
    return {name: parameters for name, parameters in kept.items() if parameters}


def _outputs(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with in_evaluation(network):
        return network(x).flatten()


def _columns(size: int, most: int, seed: int) -> torch.Tensor:
    """The numbers of the parameters that are measured."""
    if size <= most:
        return torch.arange(size)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:most].sort().values


def _jacobians(
    network: nn.Module,
    inputs: Sequence[torch.Tensor],
    groups: dict[str, list[nn.Parameter]],
    columns: dict[str, torch.Tensor],
    step: Callable[[], object],
) -> dict[str, torch.Tensor]:
    """The Jacobian of the outputs with respect to each group, (rows, measured parameters)."""
    everything = [parameter for parameters in groups.values() for parameter in parameters]
    columns = {name: chosen.to(groups[name][0].device) for name, chosen in columns.items()}
    found: dict[str, torch.Tensor] = {}
    for number, x in enumerate(inputs):
        outputs = _outputs(network, x)
        for place, output in enumerate(outputs):
            gradients = iter(torch.autograd.grad(output, everything, retain_graph=place + 1 < len(outputs)))
            for name, parameters in groups.items():
                row = torch.cat([next(gradients).flatten() for _ in parameters])
                if not row.isfinite().all():
                    raise ExpressivityError(f"a gradient of the parameters of {name} is not finite")
                if name not in found:
                    found[name] = row.new_empty(len(inputs) * len(outputs), len(columns[name]))
                found[name][number * len(outputs) + place] = row[columns[name]]
        step()
    return found


def _kernel(jacobian: torch.Tensor, parameters: int) -> torch.Tensor:
    """J J^T in float64, (rows, rows), scaled up from the measured parameters to all."""
    total = 0
    for part in jacobian.split(COLUMNS_AT_ONCE, dim=1):
        part = where_float64_is(part).double()
        total = total + part @ part.T
    return total * (parameters / jacobian.shape[1])


def _described(kernel: torch.Tensor, parameters: int, measured: int) -> BlockKernel:
    """A kernel's effective rank; 0 if it is 0, as no parameter moves an output then."""
    trace = kernel.trace().item()
    rank = effective_rank(torch.linalg.eigvalsh(kernel)) if trace else 0.0
    return BlockKernel(parameters, measured, rank, trace)
