"""Effective rank of the tangent kernel of each block's parameters alone, and of all of them together.

The kernel of a block is J J^T, where J has a row for each output of each input and a column for each trained parameter
of the block. The kernels of disjoint sets of parameters add up to the kernel of all.

A J of more than SKETCH columns is replaced by J S with a random S of SKETCH columns, one entry of +1 or -1 in each row
(Charikar et al. 2002, "Finding frequent items in data streams"). E[J S S^T J^T] = J J^T, with an error of about
sqrt(2 / SKETCH), 0.6%, of the norms of two rows in their product. A sample of the parameters would need far more of
them, as few parameters have most of a gradient.
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
SKETCH = 2**16 + 1  # a prime: parameters that share a column are in no pattern
JACKKNIFE = 16  # parts of the inputs


@dataclass(frozen=True)
class BlockKernel:
    """The tangent kernel of the trained parameters of one block.

    parameters: their number.
    exact: False if it was computed from a sketch.
    rank: effective rank of the kernel, at most the smaller of `parameters` and the number of outputs of all inputs.
    rank_error: standard error of `rank` by the jackknife over inputs: how much it depends on which were drawn.
    unit_rank, unit_error: the same with all rows of J scaled to length 1, so that no input counts more than another.
    trace: sum of the kernel's eigenvalues, the squared norm of J.
    """

    parameters: int
    exact: bool
    rank: float
    rank_error: float
    unit_rank: float
    unit_error: float
    trace: float


def block_kernels(
    network: nn.Module,
    inputs: Sequence[torch.Tensor],
    blocks: dict[str, str],
    seed: int = 0,
    sketch: int = SKETCH,
    step: Callable[[], object] = lambda: None,
) -> dict[str, BlockKernel]:
    """Measure the kernels of the trained parameters of each block, of those elsewhere, and of all.

    network: maps an input to a tensor of outputs; it runs in evaluation mode, and its mode is restored. What requires
        gradients counts as trained, if the outputs depend on it.
    inputs: one tensor each; their shapes may differ.
    blocks: name -> module of the network. A parameter that belongs to no block, or to several, is elsewhere.
    seed: seed of the sketches.
    sketch: the most columns of a J, with a row of float32 numbers for each output of each input.
    step: called after each input.

    Returns name -> kernel, without blocks that train nothing. Raises ExpressivityError if nothing is trained, or if a
    gradient is not finite.
    """
    groups = _used(network, inputs[0], _by_block(network, blocks))
    if not groups:
        raise ExpressivityError("the outputs of the network depend on no trained parameter")
    sizes = {name: sum(p.numel() for p in parameters) for name, parameters in groups.items()}
    kernels = {}
    for name, jacobian in _jacobians(network, inputs, groups, seed, sketch, step).items():
        jacobian = where_float64_is(jacobian).double()
        kernels[name] = jacobian @ jacobian.T
    kernels[ALL], sizes[ALL] = torch.stack(list(kernels.values())).sum(0), sum(sizes.values())
    exact = {name: size <= sketch for name, size in sizes.items()}
    exact[ALL] = all(exact[name] for name in groups)
    return {name: _described(kernel, sizes[name], exact[name], len(inputs)) for name, kernel in kernels.items()}


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


def _jacobians(
    network: nn.Module,
    inputs: Sequence[torch.Tensor],
    groups: dict[str, list[nn.Parameter]],
    seed: int,
    sketch: int,
    step: Callable[[], object],
) -> dict[str, torch.Tensor]:
    """The Jacobian of the outputs with respect to each group, or its sketch: (rows, columns)."""
    everything = [parameter for parameters in groups.values() for parameter in parameters]
    sizes = {name: sum(parameter.numel() for parameter in parameters) for name, parameters in groups.items()}
    with torch.no_grad():
        first = _outputs(network, inputs[0])
    # All at once: rows kept one by one among gradients that come and go would leave no holes to use again.
    found = {name: first.new_empty(len(inputs), len(first), min(size, sketch)) for name, size in sizes.items()}
    generator, signs = torch.Generator().manual_seed(seed), {}
    for name, size in sizes.items():
        if size > sketch:
            drawn = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8)
            signs[name] = drawn.mul_(2).sub_(1).to(first.device)
    for number, x in enumerate(inputs):
        outputs = _outputs(network, x)
        for place, output in enumerate(outputs):
            kept = place + 1 < len(outputs)
            gradients = iter(torch.autograd.grad(output, everything, retain_graph=kept, materialize_grads=True))
            for name, parameters in groups.items():
                row = torch.cat([next(gradients).flatten() for _ in parameters])
                row = _sketched(row, signs[name], sketch) if name in signs else row
                if not row.isfinite().all():
                    raise ExpressivityError(f"a gradient of the parameters of {name} is not finite")
                found[name][number, place] = row
        step()
    return {name: rows.flatten(0, 1) for name, rows in found.items()}


def _sketched(row: torch.Tensor, signs: torch.Tensor, columns: int) -> torch.Tensor:
    """The sums of every `columns`-th entry, with signs: (size,) -> (columns,). Writes to `row`."""
    signed = row.mul_(signs)
    whole = len(row) // columns * columns
    sums = signed[:whole].view(-1, columns).sum(0)
    sums[: len(row) - whole] += signed[whole:]
    return sums


def _described(kernel: torch.Tensor, parameters: int, exact: bool, inputs: int) -> BlockKernel:
    lengths = kernel.diagonal().sqrt()
    scales = torch.where(lengths > 0, 1 / lengths, 0)
    unit = kernel * torch.outer(scales, scales)
    ranks = [measure for each in (kernel, unit) for measure in (_rank(each), _rank_error(each, inputs))]
    return BlockKernel(parameters, exact, *ranks, kernel.trace().item())


def _rank(kernel: torch.Tensor) -> float:
    """The effective rank of a kernel; 0 if it is 0, as no parameter moves an output then."""
    return effective_rank(torch.linalg.eigvalsh(kernel)) if kernel.trace() else 0.0


def _rank_error(kernel: torch.Tensor, inputs: int) -> float:
    """The standard error of the rank by the jackknife: from the ranks without the first, second, .. part of the inputs.

    Efron and Stein 1981, "The jackknife estimate of variance".
    """
    groups = min(inputs, JACKKNIFE)
    of_row = torch.arange(len(kernel), device=kernel.device) * inputs // len(kernel) * groups // inputs
    kept = [(of_row != group).nonzero()[:, 0] for group in range(groups)]
    ranks = torch.tensor([_rank(kernel[rows][:, rows]) for rows in kept], dtype=torch.float64)
    return ((groups - 1) * ranks.var(correction=0)).sqrt().item()
