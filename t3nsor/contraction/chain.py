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

from t3nsor.contraction.gemm import NARROW, add_product, add_term, blocks, is_narrow, sum_dtype, write_product


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

    def operand(self, state: torch.Tensor) -> torch.Tensor:
        """The state in the form that is multiplied: (rows * batch * rest, inner) or (rows * batch, inner, rest)."""
        return _modes_last(state, self.inner, self.rest) if self.by_rows else state.view(-1, self.inner, self.rest)

    def apply(self, matrix: torch.Tensor, operand: torch.Tensor, out: torch.Tensor, accumulate: bool = False) -> None:
        """Set out (rows, batch * outer * rest) = the operand times the matrix, or add the product to it."""
        _multiply(operand, matrix, out, self.rest, accumulate)

    def backward(
        self,
        matrix: torch.Tensor,
        d: torch.Tensor,
        operand: torch.Tensor | None,
        total: torch.Tensor | None,
        d_state: torch.Tensor | None,
        accumulate: bool,
    ) -> torch.Tensor | None:
        """Return total + the gradient of the matrix, and write that of the state.

        d: the gradient of the output, (rows, batch * outer * rest).
        operand: of the step; None: the gradient of the matrix is not needed, and `total` is returned.
        total: the sum over earlier rows; None for 0.
        d_state: (rows, batch * inner * rest), overwritten, or added to if `accumulate`; None: not needed.
        """
        d = _modes_last(d, self.outer, self.rest) if self.by_rows else d.view(-1, self.outer, self.rest)
        if operand is not None:
            total = self._add_matrix_gradient(total, operand, d)
        if d_state is not None:
            _multiply(d, matrix.t(), d_state, self.rest, accumulate)
        return total

    def _add_matrix_gradient(self, total: torch.Tensor | None, operand: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        if not self.by_rows:
            if sums_small_products(self) and not is_narrow(self.outer, operand):
                products = torch.bmm(operand, d.transpose(1, 2))
                return add_term(total, products.sum(0, dtype=sum_dtype(products)))
            operand, d = _modes_last(operand, self.inner, self.rest), _modes_last(d, self.outer, self.rest)
        return add_product(total, operand.t(), d)


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
    """The steps of a plan, carried out outside autograd, into given memory.

    rows_per_block: rows handled at once.
    """

    steps: list[ChainStep]
    rows_per_block: int

    def forward(
        self, matrices: Sequence[torch.Tensor], x: torch.Tensor, y: torch.Tensor, accumulate: bool, keep: bool
    ) -> list[torch.Tensor]:
        """Set y (rows, out) = x (rows, in) times the chain, or add the product to it.

        matrices: (inner, outer) of each step.
        Returns the states between the steps, (rows, size) each, if `keep`.
        """
        states = self._memory(x, len(x) if keep else self.rows_per_block)
        for rows in blocks(len(x), self.rows_per_block):
            operands = self._operands(matrices, x[rows], _part(states, rows, keep), filled=False)
            self.steps[-1].apply(matrices[-1], operands[-1], y[rows], accumulate)
        return states if keep else []

    def backward(
        self,
        matrices: Sequence[torch.Tensor],
        x: torch.Tensor,
        g: torch.Tensor,
        dx: torch.Tensor | None,
        accumulate: bool,
        matrix_gradients: bool,
        kept: Sequence[torch.Tensor] = (),
    ) -> list[torch.Tensor] | None:
        """Backpropagate g (rows, out).

        x: (rows, in).
        dx: (rows, in), overwritten, or added to if `accumulate`; None: the gradient of x is not needed.
        kept: the states that `forward` returned; empty: they are computed again.
        Returns the gradients of the matrices, or None unless `matrix_gradients`.
        """
        states, d_states = kept or self._memory(x, self.rows_per_block), self._memory(x, self.rows_per_block)
        totals: list[torch.Tensor | None] = [None] * len(self.steps)
        for rows in blocks(len(x), self.rows_per_block):
            operands: list = [None] * len(self.steps)
            if matrix_gradients:
                operands = self._operands(matrices, x[rows], _part(states, rows, bool(kept)), filled=bool(kept))
            ds: list = [None if dx is None else dx[rows], *_part(d_states, rows, False), g[rows]]
            for k in reversed(range(len(self.steps))):
                step, adds = self.steps[k], accumulate and k == 0
                totals[k] = step.backward(matrices[k], ds[k + 1], operands[k], totals[k], ds[k], adds)
        return [total for total in totals if total is not None] if matrix_gradients else None

    def _memory(self, x: torch.Tensor, rows: int) -> list[torch.Tensor]:
        """Memory for the states of so many rows between the steps."""
        return [x.new_empty(min(rows, len(x)), step.batch * step.outer * step.rest) for step in self.steps[:-1]]

    def _operands(
        self, matrices: Sequence[torch.Tensor], x: torch.Tensor, states: Sequence[torch.Tensor], filled: bool
    ) -> list[torch.Tensor]:
        """The operand of each step; unless they are `filled`, the states are computed."""
        operands = [self.steps[0].operand(x)]
        for step, matrix, state, after in zip(self.steps, matrices, states, self.steps[1:], strict=False):
            if not filled:
                step.apply(matrix, operands[-1], state)
            operands.append(after.operand(state))
        return operands


def compose_chain(x: torch.Tensor, steps: Sequence[ChainStep], matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """x (rows, in) -> y of rows * out numbers in differentiable operations that any transform of torch understands."""
    state = x
    for step, matrix in zip(steps, matrices, strict=True):
        if step.rest == 1:
            state = torch.mm(state.reshape(-1, step.inner), matrix)
            continue
        state = state.reshape(-1, step.inner, step.rest)
        if step.by_rows:
            state = (state.transpose(1, 2) @ matrix).transpose(1, 2)
        else:
            state = torch.bmm(matrix.t().expand(state.shape[0], -1, -1), state)
    return state


def _part(states: Sequence[torch.Tensor], rows: slice, whole: bool) -> list[torch.Tensor]:
    """The rows of states, of memory for all rows if `whole`, else for one block."""
    return [state[rows] if whole else state[: rows.stop - rows.start] for state in states]


def _modes_last(state: torch.Tensor, modes: int, rest: int) -> torch.Tensor:
    """(.., modes, rest) -> (.. * rest, modes), without a copy if rest is 1."""
    return state.reshape(-1, modes) if rest == 1 else state.reshape(-1, modes, rest).transpose(1, 2).reshape(-1, modes)


def _multiply(operand: torch.Tensor, matrix: torch.Tensor, out: torch.Tensor, rest: int, accumulate: bool) -> None:
    """Set out (.., outer, rest) = an operand of either form times the matrix (inner, outer), or add to it."""
    outer = matrix.shape[1]
    if rest == 1:
        write_product(out.view(-1, outer), operand, matrix, accumulate)
        return
    out = out.view(-1, outer, rest)
    if operand.dim() == 2:
        product = torch.mm(operand, matrix).view(-1, rest, outer).transpose(1, 2)
        out.add_(product) if accumulate else out.copy_(product)
        return
    matrices = matrix.t().contiguous().expand(out.shape[0], -1, -1)  # some transposed ones take longer
    out.baddbmm_(matrices, operand) if accumulate else torch.bmm(matrices, operand, out=out)
