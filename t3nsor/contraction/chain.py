"""Rows times a chain of factors, one GEMM per factor, in blocks of rows that stay in cache.

A factor of shape (left, n, m, right) becomes a matrix by which the state is multiplied,

    left to right:  (rows * m_1 .. m_{k-1}, left * n_k, n_{k+1} ..) -> (rows * m_1 .. m_{k-1}, m_k * right, n_{k+1} ..)
    right to left:  (rows * n_1 .. n_{k-1}, n_k * right, m_{k+1} ..) -> (rows * n_1 .. n_{k-1}, left * m_k, m_{k+1} ..)

so that rank and mode of the next factor are always adjacent, and no state has to be permuted between two steps.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from t3nsor.contraction.gemm import NARROW, add_product, add_term, is_narrow, product, sum_dtype, write_product

MOST_SUMMED = 2**24  # numbers in the small products that an accelerator sums


@dataclass(frozen=True)
class ChainStep:
    """A matrix (inner, outer) applied to a state (rows * batch, inner, rest), giving (rows * batch, outer, rest).

    by_rows: True for one GEMM with all (rows * batch * rest, inner) as rows, a permuted copy of the state if rest > 1.
        False for one product for each of rows * batch.
    """

    batch: int
    outer: int
    inner: int
    rest: int
    by_rows: bool

    def operand(self, state: torch.Tensor, modes: int) -> torch.Tensor:
        """A state as it is multiplied, (.. * rest, modes) if by_rows, else (.., modes, rest); modes: inner or outer."""
        if self.rest == 1:
            return state.reshape(-1, modes)
        state = state.reshape(-1, modes, self.rest)
        return state.transpose(1, 2).reshape(-1, modes) if self.by_rows else state

    def multiply(self, operand: torch.Tensor, matrix: torch.Tensor, memory: torch.Tensor | None = None) -> torch.Tensor:
        """An operand times the matrix, or its transpose: the next state, in any layout, (.., modes, rest).

        memory: for the state; None: for a differentiable one. States of a block are large enough for new memory to cost
            as much time as the product.
        """
        modes = matrix.shape[1]
        if self.by_rows and self.rest > 1:
            return product(operand, matrix).reshape(-1, self.rest, modes).transpose(1, 2)
        if memory is None:
            if self.by_rows:
                return product(operand, matrix)
            return torch.bmm(matrix.t().expand(operand.shape[0], -1, -1), operand)
        out = memory[: operand.shape[0] * modes * self.rest]
        self.multiply_into(out, operand, matrix, None)
        return out

    def multiply_into(
        self, out: torch.Tensor, operand: torch.Tensor, matrix: torch.Tensor, base: torch.Tensor | None
    ) -> None:
        """Set out = base + what `multiply` returns.

        base: `out` itself, or numbers for each of its columns, or None for 0.
        """
        sizes = (-1, matrix.shape[1]) if self.rest == 1 else (-1, matrix.shape[1], self.rest)
        out, base = out.view(sizes), None if base is None else base.view(sizes)
        if self.rest == 1:
            write_product(out, operand, matrix, base)
        elif self.by_rows:
            state = self.multiply(operand, matrix)
            out.copy_(state) if base is None else torch.add(base, state, out=out)
        else:
            matrices = _for_each(operand, matrix)
            torch.bmm(matrices, operand, out=out) if base is None else torch.baddbmm(base, matrices, operand, out=out)

    def add_matrix_gradient(self, total: torch.Tensor | None, operand: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        """Return total + the gradient of the matrix.

        d: the gradient of the next state, as an operand.
        """
        if not self.by_rows:
            if self._sums_products(operand):
                products = torch.bmm(operand, d.transpose(1, 2))
                return add_term(total, products.sum(0, dtype=sum_dtype(products)))
            operand, d = (each.transpose(1, 2).reshape(-1, each.shape[1]) for each in (operand, d))
        return add_product(total, operand.t(), d)

    def _sums_products(self, operand: torch.Tensor) -> bool:
        """True if the gradient of the matrix is a sum of small products, not one product of permuted copies."""
        if operand.device.type in ("cpu", "meta"):
            return sums_small_products(self) and not is_narrow(self.outer, operand)
        return operand.shape[0] * self.inner * self.outer <= MOST_SUMMED


def chain_steps(
    factor_shapes: Sequence[tuple[int, int, int, int]], right_to_left: bool, device: str, item_size: int
) -> list[ChainStep]:
    """The steps of a chain over factors of shapes (left, n, m, right), in the order of execution."""
    inputs, outputs = ([shape[axis] for shape in factor_shapes] for axis in (1, 2))
    steps = []
    for k, (left, n, m, right) in enumerate(factor_shapes):
        if right_to_left:
            sizes = math.prod(inputs[:k]), left * m, n * right, math.prod(outputs[k + 1 :])
        else:
            sizes = math.prod(outputs[:k]), m * right, left * n, math.prod(inputs[k + 1 :])
        steps.append(ChainStep(*sizes, by_rows=multiplies_by_rows(*sizes[1:], device, item_size)))
    return steps[::-1] if right_to_left else steps


def multiplies_by_rows(outer: int, inner: int, rest: int, device: str, item_size: int) -> bool:
    """True if a step takes less time as one GEMM with a permuted copy of its state than as a batch of small products.

    On a CPU these may be too narrow, and in half precision the matrix is copied for each of them.
    """
    if rest == 1 or device not in ("cpu", "meta"):
        return rest == 1
    return rest < NARROW if item_size >= 4 else outer * inner > 3 * (outer + inner) * rest


def sums_small_products(step: ChainStep) -> bool:
    """True if the gradient of a matrix is a sum of small products rather than one product of permuted copies."""
    return step.outer * step.inner < step.rest * (step.outer + step.inner)


@dataclass(frozen=True)
class Chain:
    """The steps of a plan, carried out outside autograd.

    rows_per_block: rows handled at once.
    """

    steps: list[ChainStep]
    rows_per_block: int

    def forward(
        self,
        matrices: Sequence[torch.Tensor],
        x: torch.Tensor,
        y: torch.Tensor,
        base: torch.Tensor | None,
        keep: bool,
    ) -> list[torch.Tensor]:
        """Set y (rows, out) = base + x (rows, in) times the chain.

        matrices: (inner, outer) of each step.
        base: y itself, a bias (out,), or None for 0.
        Returns the operands of all steps but the first, for each block of rows, if `keep`.
        """
        between, last = [], self.steps[-1]
        memory = self._memory(x, keep)
        if base is not None and base is not y and last.batch > 1:
            base = y.copy_(base)
        for x_rows, y_rows in zip(self._blocks(x), self._blocks(y), strict=True):
            states = self._between(matrices, x_rows, memory)
            operand = states[-1] if states else last.operand(x_rows, last.inner)
            last.multiply_into(y_rows, operand, matrices[-1], y_rows if base is y else base)
            between += states if keep else []
        return between

    def backward(
        self,
        matrices: Sequence[torch.Tensor],
        x: torch.Tensor,
        g: torch.Tensor,
        dx: torch.Tensor | None,
        matrix_gradients: bool,
        kept: Sequence[torch.Tensor] = (),
    ) -> list[torch.Tensor] | None:
        """Backpropagate g (rows, out).

        x: (rows, in).
        dx: (rows, in), overwritten; None: the gradient of x is not needed.
        kept: what `forward` returned; empty: it is computed again.
        Returns the gradients of the matrices, or None unless `matrix_gradients`.
        """
        last = len(self.steps) - 1
        memory, d_memory = self._memory(x, bool(kept) or not matrix_gradients), self._memory(x)
        totals: list[torch.Tensor | None] = [None] * len(self.steps)
        dx_blocks = [None] * -(-len(x) // self.rows_per_block) if dx is None else self._blocks(dx)
        for number, (x_rows, d, dx_rows) in enumerate(zip(self._blocks(x), self._blocks(g), dx_blocks, strict=False)):
            if matrix_gradients:
                between = kept[last * number : last * (number + 1)] if kept else self._between(matrices, x_rows, memory)
            for k in range(last, -1, -1):
                step = self.steps[k]
                d = step.operand(d, step.outer)
                if matrix_gradients:
                    operand = between[k - 1] if k > 0 else step.operand(x_rows, step.inner)
                    totals[k] = step.add_matrix_gradient(totals[k], operand, d)
                if k > 0:
                    d = step.multiply(d, matrices[k].t(), d_memory[k - 1])
                elif dx_rows is not None:
                    step.multiply_into(dx_rows, d, matrices[0].t(), None)
        return [total for total in totals if total is not None] if matrix_gradients else None

    def _blocks(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        return [rows] if len(rows) <= self.rows_per_block else rows.split(self.rows_per_block)

    def _memory(self, x: torch.Tensor, unused: bool = False) -> list[torch.Tensor | None]:
        """Memory for the states between the steps, of one block of rows after the other."""
        if unused or len(x) <= self.rows_per_block:
            return [None] * len(self.steps)
        return [x.new_empty(self.rows_per_block * step.batch * step.outer * step.rest) for step in self.steps[:-1]]

    def _between(
        self, matrices: Sequence[torch.Tensor], x: torch.Tensor, memory: Sequence[torch.Tensor | None]
    ) -> list[torch.Tensor]:
        """The operands of all steps but the first."""
        between, operand = [], self.steps[0].operand(x, self.steps[0].inner)
        for step, after, matrix, out in zip(self.steps, self.steps[1:], matrices, memory, strict=False):
            operand = after.operand(step.multiply(operand, matrix, out), after.inner)
            between.append(operand)
        return between


def _for_each(operand: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """The transposed matrix once for each product of a batch; a CPU takes longer for some that are not contiguous."""
    turned = matrix.t()
    turned = turned.contiguous() if operand.device.type == "cpu" else turned
    return turned.expand(operand.shape[0], -1, -1)
