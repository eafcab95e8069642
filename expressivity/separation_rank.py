"""Separation rank: how strongly a module ties two groups of its inputs together, from its values on a grid.

M template vectors at each of N positions make M^N inputs, and the module's values on them the grid tensor. The rank of
its matricisation, with one group of positions as rows and the others as columns, is a lower bound of the number of
products f(left) g(right) of which the module is a sum. Cohen, Sharir and Shashua 2016,
https://arxiv.org/abs/1509.05009; Cohen and Shashua 2016, https://arxiv.org/abs/1603.00162; for trains Khrulkov, Novikov
and Oseledets 2018, https://arxiv.org/abs/1711.00811, and with activations Khrulkov, Hrinchuk and Oseledets 2019,
https://arxiv.org/abs/1901.10801.
"""

import copy
import functools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from common.errors import type_and_line
from expressivity.devices import available_memory
from expressivity.errors import SEVERAL, ExpressivityError, each_is

PIECE = 2**22, 4096  # the most entries of the inputs, and the most inputs, that pass through the module at once
PART = "a number, at least 0 and below 1", lambda value: 0 <= value < 1
COPIES = 3  # of the grid in memory: itself, its matricisation, and what the decomposition writes over

Templates = torch.Tensor | Sequence[torch.Tensor]
Left = str | Collection[int] | None


@dataclass(frozen=True)
class SeparationRank:
    """The numerical rank of the matricised grid tensor; of several outputs, that of the output with the largest.

    rank: number of singular values above tolerance * (the largest of them).
    largest: the rank that a matrix of this shape can have.
    tolerance: see `separation_rank`.
    singular_values: all of them, (largest,), in descending order.
    by_output: the rank of each output.
    """

    rank: int
    largest: int
    tolerance: float
    singular_values: torch.Tensor
    by_output: tuple[int, ...]


def separation_rank(
    module: nn.Module,
    templates: Templates,
    left: Left = None,
    tolerance: float | None = None,
    *,
    join: str = "stacked",
    positions: int | None = None,
) -> SeparationRank:
    """The numerical separation rank of a module on a grid of templates.

    module, templates, join, positions: see `grid_tensor`.
    left: indices of the positions on one side, from 0; None: the first half (N // 2); "odd_even": every other one.
    tolerance: singular values up to this part of the largest one count as zero; None: max(rows, columns) of the
        matricisation times the machine epsilon of the outputs, as in torch.linalg.matrix_rank. It allows for rounding
        in a few operations; raise it for modules that add up many terms which nearly cancel.

    Raises ExpressivityError as `grid_tensor` does, and for another `left` or tolerance.
    """
    left_side(left, len(checked_templates(templates, positions, join)))
    grid = grid_tensor(module, templates, join=join, positions=positions)
    return rank_of_grid(grid, left, tolerance)


def rank_of_grid(grid: torch.Tensor, left: Left = None, tolerance: float | None = None) -> SeparationRank:
    """The same for a grid tensor (M_1, .., M_N, outputs) that is known already."""
    count = grid.dim() - 1
    rows = left_side(left, count)
    columns = [k for k in range(count) if k not in rows]
    matrices = grid.permute(count, *rows, *columns).reshape(
        grid.shape[-1], math.prod(grid.shape[k] for k in rows), math.prod(grid.shape[k] for k in columns)
    )
    if tolerance is None:
        tolerance = max(matrices.shape[1:]) * torch.finfo(grid.dtype).eps
    each_is([tolerance], PART, "tolerance")
    values = torch.linalg.svdvals(matrices.double())
    ranks = (values > tolerance * values[:, :1]).sum(1).tolist()
    most = ranks.index(max(ranks))
    return SeparationRank(ranks[most], values.shape[1], tolerance, values[most], tuple(ranks))


def grid_tensor(
    module: nn.Module, templates: Templates, *, join: str = "stacked", positions: int | None = None
) -> torch.Tensor:
    """The values of a module on all inputs that templates make, (M_1, .., M_N, outputs), on the CPU.

    module: evaluated as a copy, on the CPU, in float64 and in evaluation mode, in pieces.
    templates: one (M_k, n_k) for each of the N positions, or one (M, n) for all of them.
    join: how N templates make an input: "stacked", (N, n); "concatenated", (n_1 + .. + n_N,); or "outer", their outer
        product (n_1 * .. * n_N,), with the last position running fastest, as the modes of a t3nsor.TTLinear.
    positions: N, if one (M, n) is given for all.

    The outputs have the dtype that the module returns: float64, unless it converts.

    Raises ExpressivityError for templates of another shape or that the module does not accept, for a grid that does not
    fit into memory, and for outputs that are not a real, finite tensor with a row per input.
    """
    vectors = checked_templates(templates, positions, join)
    sizes = [len(each) for each in vectors]
    joined = JOINS[join]
    width = joined([each[:1] for each in vectors]).numel() if join != "outer" else _product(vectors)
    _require_memory(sizes, 1, width)
    evaluated = _in_float64(module)
    with torch.no_grad():
        first = _outputs(evaluated, joined([each[:1] for each in vectors]), vectors, join)
        _require_memory(sizes, first.shape[1], width)
        grid = first.new_empty(math.prod(sizes), first.shape[1])
        for piece in torch.arange(len(grid)).split(max(1, min(PIECE[0] // width, PIECE[1]))):
            chosen = torch.unravel_index(piece, sizes)
            inputs = joined([each[index] for each, index in zip(vectors, chosen, strict=True)])
            grid[piece] = _outputs(evaluated, inputs, vectors, join)
    return grid.unflatten(0, sizes)


def left_side(left: Left, count: int) -> list[int]:
    """The positions on the left of a partition of `count`; see `separation_rank`. Raises ExpressivityError."""
    if left is None:
        left = range(count // 2)
    elif isinstance(left, str) and left == "odd_even":
        left = range(0, count, 2)
    given = sorted(left) if isinstance(left, Collection) and all(type(k) is int for k in left) else []
    if not 0 < len(given) < count or len(set(given)) != len(given) or given[0] < 0 or given[-1] >= count:
        shown = list(left) if isinstance(left, range | set | frozenset | tuple) else left
        raise ExpressivityError(
            f"left is {shown!r}; with {count} positions it must be None, 'odd_even' or different indices from 0 to "
            f"{count - 1}, at least one and not all"
        )
    return given


def checked_templates(templates: Templates, positions: int | None, join: str) -> list[torch.Tensor]:
    """One float64 tensor (M_k, n_k) per position. Raises ExpressivityError; see `grid_tensor`."""
    if join not in JOINS:
        raise ExpressivityError(f"join is {join!r}; allowed: {', '.join(JOINS)}")
    if isinstance(templates, torch.Tensor):
        each_is([positions], SEVERAL, "with one tensor of templates for all, positions")
        templates = [templates] * positions
    if not isinstance(templates, Sequence):
        raise ExpressivityError(
            f"templates is {type(templates).__name__}; it must be a tensor, or one for each position"
        )
    if positions not in (None, len(templates)) or len(templates) < 2:
        raise ExpressivityError(
            f"templates has {len(templates)} tensors and positions is {positions}; give one tensor for each position, "
            "at least 2"
        )
    for k, each in enumerate(templates):
        if not isinstance(each, torch.Tensor) or each.dim() != 2 or not each.numel() or each.is_complex():
            got = tuple(each.shape) if isinstance(each, torch.Tensor) else type(each).__name__
            raise ExpressivityError(f"templates of position {k}: got {got}; it must be a real tensor (M, n)")
        if not each.isfinite().all():
            raise ExpressivityError(f"templates of position {k} holds values that are not finite")
    if join == "stacked" and len({each.shape[1] for each in templates}) > 1:
        raise ExpressivityError(
            f"templates have the sizes {[each.shape[1] for each in templates]}; with join 'stacked' all need the same"
        )
    return [each.detach().cpu().double() for each in templates]


def _outer(vectors: list[torch.Tensor]) -> torch.Tensor:
    return functools.reduce(lambda x, y: (x[:, :, None] * y[:, None, :]).flatten(1), vectors)


JOINS = {
    "stacked": lambda vectors: torch.stack(vectors, dim=1),
    "concatenated": lambda vectors: torch.cat(vectors, dim=1),
    "outer": _outer,
}


def _product(vectors: list[torch.Tensor]) -> int:
    return math.prod(each.shape[1] for each in vectors)


def _in_float64(module: nn.Module) -> nn.Module:
    if not isinstance(module, nn.Module):
        raise ExpressivityError(f"the module is {module!r}; it must be an nn.Module")
    try:
        return copy.deepcopy(module).cpu().double().eval()
    except Exception as error:  # a user's module may raise anything
        raise ExpressivityError(f"{type(module).__name__} cannot be copied: {type_and_line(error)}") from error


def _outputs(module: nn.Module, inputs: torch.Tensor, vectors: list[torch.Tensor], join: str) -> torch.Tensor:
    """Outputs (rows, outputs) for `inputs` (rows, ..). Raises ExpressivityError."""
    name, size, rows = type(module).__name__, tuple(inputs.shape[1:]), len(inputs)
    try:
        y = module(inputs)
    except Exception as error:  # a user's module may raise anything
        raise ExpressivityError(
            f"{name} does not accept inputs of size {size}, {join} from templates of sizes "
            f"{[each.shape[1] for each in vectors]}: {type_and_line(error)}"
        ) from error
    if not isinstance(y, torch.Tensor) or y.dim() < 1 or len(y) != rows or not y.numel() or not y.is_floating_point():
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, torch.Tensor) else type(y).__name__
        raise ExpressivityError(f"{name} returned {got} for {rows} inputs; it must be a real tensor (rows, ..)")
    if not y.isfinite().all():
        raise ExpressivityError(f"{name} returned values that are not finite on the grid")
    return y.reshape(rows, -1)


def _require_memory(sizes: list[int], outputs: int, width: int) -> None:
    """Raise ExpressivityError unless the grid, and one input of `width` entries, fit into the memory that is free."""
    needed, free = 8 * (COPIES * math.prod(sizes) * outputs + width), available_memory()
    if needed > free:
        shape = f"{sizes[0]}^{len(sizes)}" if len(set(sizes)) == 1 else " * ".join(map(str, sizes))
        raise ExpressivityError(
            f"the grid tensor has {shape} = {math.prod(sizes):,} inputs of {width:,} entries and at least {outputs:,} "
            f"outputs each: it needs {needed / 2**30:,.1f} GiB, {free / 2**30:,.1f} GiB are free; give fewer templates "
            "or positions"
        )
