"""Rows times a chain of factors, one batched GEMM per factor, in blocks of rows that stay in cache.

A factor of shape (left, n, m, right) becomes a matrix that multiplies the state from the left,

    left to right:  (rows * m_1 .. m_{k-1}, left * n_k, n_{k+1} ..) -> (rows * m_1 .. m_{k-1}, m_k * right, n_{k+1} ..)
    right to left:  (rows * n_1 .. n_{k-1}, n_k * right, m_{k+1} ..) -> (rows * n_1 .. n_{k-1}, left * m_k, m_{k+1} ..)

so that rank and mode of the next factor are always adjacent: no step permutes its state.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import torch

from t3nsor.contraction.gemm import NARROW, add_product, add_term, is_narrow, sum_dtype, write_product


@dataclass(frozen=True)
class ChainStep:
    """Sizes of one step: a matrix (outer, inner) times a state (rows * batch, inner, rest)."""

    batch: int
    outer: int
    inner: int
    rest: int


def chain_steps(factor_shapes: Sequence[tuple[int, int, int, int]], right_to_left: bool) -> list[ChainStep]:
    """The steps of a chain over factors of shapes (left, n, m, right), in the order of execution."""
    inputs, outputs = ([shape[axis] for shape in factor_shapes] for axis in (1, 2))
    steps = []
    for k, (left, n, m, right) in enumerate(factor_shapes):
        if right_to_left:
            steps.append(ChainStep(math.prod(inputs[:k]), left * m, n * right, math.prod(outputs[k + 1 :])))
        else:
            steps.append(ChainStep(math.prod(outputs[:k]), m * right, left * n, math.prod(inputs[k + 1 :])))
    return steps[::-1] if right_to_left else steps


@dataclass(frozen=True)
class Chain:
    """The steps of a plan with their matrices. Writes into given memory, outside autograd.

    steps: sizes of each step.
    matrices: (outer, inner) of each step.
    rows_per_block: rows handled at once.
    """

    steps: list[ChainStep]
    matrices: list[torch.Tensor]
    rows_per_block: int

    def forward(self, x: torch.Tensor, y: torch.Tensor, accumulate: bool, bias: torch.Tensor | None = None) -> None:
        """Set y (rows, out) = x (rows, in) times the chain + bias (out,), or add the product if `accumulate`."""
        memory = [self._memory(x, step) for step in self.steps[:-1]]
        for x_rows, y_rows in zip(self._blocks(x), self._blocks(y), strict=True):
            state = self._states(x_rows, memory)[-1]
            if bias is not None:
                y_rows.copy_(bias)
            apply_step(self.steps[-1], self.matrices[-1], state, y_rows, accumulate or bias is not None)

    def backward(
        self, x: torch.Tensor, g: torch.Tensor, dx: torch.Tensor | None, accumulate: bool, matrix_gradients: bool
    ) -> list[torch.Tensor] | None:
        """Backpropagate g (rows, out), recomputing the states of x (rows, in).

        dx: (rows, in), overwritten, or added to if `accumulate`; None: the gradient of x is not needed.
        Returns the gradients of the matrices, or None unless `matrix_gradients`.
        """
        memory = [self._memory(x, step) for step in self.steps[:-1]]
        d_memory = [torch.empty_like(state) for state in memory]
        gradients: list[torch.Tensor | None] = [None] * len(self.steps)
        dx_blocks: Iterable[torch.Tensor | None] = repeat(None) if dx is None else self._blocks(dx)
        for x_rows, d, dx_rows in zip(self._blocks(x), self._blocks(g), dx_blocks, strict=False):
            states = self._states(x_rows, memory) if matrix_gradients else [x_rows]
            for k in reversed(range(len(self.steps))):
                if matrix_gradients:
                    gradients[k] = add_matrix_gradient(gradients[k], self.steps[k], d, states[k])
                if k > 0:
                    d = step_input_gradient(self.steps[k], self.matrices[k], d, d_memory[k - 1])
                elif dx_rows is not None:
                    step_input_gradient(self.steps[0], self.matrices[0], d, dx_rows, accumulate)
        return [gradient for gradient in gradients if gradient is not None] if matrix_gradients else None

    def _blocks(self, rows: torch.Tensor) -> Sequence[torch.Tensor]:
        return [rows] if len(rows) <= self.rows_per_block else rows.split(self.rows_per_block)

    def _memory(self, x: torch.Tensor, step: ChainStep) -> torch.Tensor:
        return x.new_empty(min(self.rows_per_block, x.shape[0]), step.batch * step.outer * step.rest)

    def _states(self, x: torch.Tensor, memory: list[torch.Tensor]) -> list[torch.Tensor]:
        """x and the states after all steps but the last."""
        states = [x]
        for step, matrix, out in zip(self.steps, self.matrices, memory, strict=False):
            states.append(apply_step(step, matrix, states[-1], out[: x.shape[0]]))
        return states


def compose_chain(x: torch.Tensor, steps: list[ChainStep], matrices: list[torch.Tensor]) -> torch.Tensor:
    """x (rows, in) -> (rows, out) in differentiable operations that any transform of torch understands."""
    for step, matrix in zip(steps, matrices, strict=True):
        state = x.reshape(-1, step.inner, step.rest)
        x = torch.bmm(matrix.expand(state.shape[0], -1, -1), state) if step.rest > 1 else state[..., 0] @ matrix.t()
    return x


def apply_step(
    step: ChainStep, matrix: torch.Tensor, state: torch.Tensor, out: torch.Tensor, accumulate: bool = False
) -> torch.Tensor:
    """Set out = matrix (outer, inner) times each (inner, rest) of the state, or add to it; return `out`."""
    if step.rest == 1:
        write_product(out.view(-1, step.outer), state.view(-1, step.inner), matrix.t(), accumulate)
        return out
    b, c = state.view(-1, step.inner, step.rest), out.view(-1, step.outer, step.rest)
    if state.device.type == "cpu" and is_one_gemm(step, state.dtype.itemsize):
        wide = torch.mm(matrix, b.transpose(0, 1).reshape(step.inner, -1))
        product = wide.view(step.outer, -1, step.rest).transpose(0, 1)
        c.add_(product) if accumulate else c.copy_(product)
    else:
        a = matrix.contiguous().expand(b.shape[0], step.outer, step.inner)
        c.baddbmm_(a, b) if accumulate else torch.bmm(a, b, out=c)
    return out


def is_one_gemm(step: ChainStep, item_size: int) -> bool:
    """True if a CPU multiplies a permuted copy of the state in one GEMM rather than a batch of small matrices.

    The products of a batch may be too narrow, and in half precision the matrix is copied for each of them.
    """
    if item_size >= 4:
        return 1 < step.rest < NARROW
    return step.outer * step.inner > 3 * (step.outer + step.inner) * step.rest


def step_input_gradient(
    step: ChainStep, matrix: torch.Tensor, d: torch.Tensor, out: torch.Tensor, accumulate: bool = False
) -> torch.Tensor:
    """The gradient of a step's input state from `d`, that of its output."""
    transposed = ChainStep(step.batch, step.inner, step.outer, step.rest)
    return apply_step(transposed, matrix.t(), d, out[: d.shape[0]], accumulate)


def sums_small_products(step: ChainStep) -> bool:
    """True if the gradient of a matrix is a sum of small products rather than one product of permuted copies."""
    return step.outer * step.inner < step.rest * (step.outer + step.inner)


def add_matrix_gradient(
    total: torch.Tensor | None, step: ChainStep, d: torch.Tensor, state: torch.Tensor
) -> torch.Tensor:
    """Return total (outer, inner) + the sum of d @ state^T over the rows; see `add_product`."""
    if step.rest == 1:
        return add_product(total, d.view(-1, step.outer).t(), state.view(-1, step.inner))
    d, state = d.view(-1, step.outer, step.rest), state.view(-1, step.inner, step.rest)
    if sums_small_products(step) and not is_narrow(step.inner, state):
        products = torch.bmm(d, state.transpose(1, 2))
        return add_term(total, products.sum(0, dtype=sum_dtype(products)))
    a, b = (each.transpose(0, 1).reshape(each.shape[1], -1) for each in (d, state))
    return add_product(total, a, b.t())
