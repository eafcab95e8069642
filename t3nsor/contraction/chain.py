"""One contraction plan at work: rows times a chain of factors, one batched GEMM each, in blocks that stay in cache.

A factor of shape (left, n, m, right) becomes a matrix that multiplies the state from the left,

    left to right:  (rows * m_1 .. m_{k-1}, left * n_k, n_{k+1} ..) -> (rows * m_1 .. m_{k-1}, m_k * right, n_{k+1} ..)
    right to left:  (rows * n_1 .. n_{k-1}, n_k * right, m_{k+1} ..) -> (rows * n_1 .. n_{k-1}, left * m_k, m_{k+1} ..)

so that rank and mode of the next factor always lie side by side: no step permutes its state.
"""

import math
from dataclasses import dataclass
from itertools import repeat

import torch

from t3nsor.contraction.gemm import NARROW, accumulated, add_product, is_narrow, put_product, sum_dtype


@dataclass(frozen=True)
class StepShape:
    """Sizes of one step: a matrix (outer, inner) times a state (rows * batch, inner, rest)."""

    batch: int
    outer: int
    inner: int
    rest: int


def step_shapes(factor_shapes, right_to_left: bool) -> list[StepShape]:
    """The steps of a chain over factors of shapes (left, n, m, right), in the order in which they are done."""
    inputs, outputs = ([shape[axis] for shape in factor_shapes] for axis in (1, 2))
    steps = []
    for k, (left, n, m, right) in enumerate(factor_shapes):
        if right_to_left:
            steps.append(StepShape(math.prod(inputs[:k]), left * m, n * right, math.prod(outputs[k + 1 :])))
        else:
            steps.append(StepShape(math.prod(outputs[:k]), m * right, left * n, math.prod(inputs[k + 1 :])))
    return steps[::-1] if right_to_left else steps


@dataclass(frozen=True)
class Chain:
    """The steps of a plan with their matrices: rows in, rows out. Writes into given memory; knows no autograd."""

    shapes: list[StepShape]
    matrices: list[torch.Tensor]
    block: int

    def forward(self, x: torch.Tensor, y: torch.Tensor, accumulate: bool, bias: torch.Tensor | None = None) -> None:
        """y (rows, out) = or += x (rows, in) times the chain, = with `bias` (out,) added."""
        memory = [self._memory(x, shape) for shape in self.shapes[:-1]]
        for x_rows, y_rows in zip(self._blocks(x), self._blocks(y), strict=True):
            state = self._states(x_rows, memory)[-1]
            if bias is not None:
                y_rows.copy_(bias)
            multiply(self.shapes[-1], self.matrices[-1], state, y_rows, accumulate or bias is not None)

    def backward(self, x, g, dx, accumulate: bool, wanted: bool) -> list[torch.Tensor] | None:
        """Recompute the states of x, pull g (rows, out) back through the chain; the gradients of matrices, if `wanted`.

        dx: (rows, in), overwritten or added to; None: not wanted.
        """
        memory = [self._memory(x, shape) for shape in self.shapes[:-1]]
        pulled = [torch.empty_like(m) for m in memory]
        gradients = [None] * len(self.shapes) if wanted else None
        dx_blocks = repeat(None) if dx is None else self._blocks(dx)
        for x_rows, d, dx_rows in zip(self._blocks(x), self._blocks(g), dx_blocks, strict=False):
            states = self._states(x_rows, memory) if gradients is not None else [x_rows]
            for k in reversed(range(len(self.shapes))):
                if gradients is not None:
                    gradients[k] = add_gradient(gradients[k], self.shapes[k], d, states[k])
                if k > 0:
                    d = pull(self.shapes[k], self.matrices[k], d, pulled[k - 1])
                elif dx is not None:
                    pull(self.shapes[0], self.matrices[0], d, dx_rows, accumulate)
        return gradients

    def _blocks(self, rows: torch.Tensor):
        return [rows] if len(rows) <= self.block else rows.split(self.block)

    def _memory(self, x: torch.Tensor, shape: StepShape) -> torch.Tensor:
        return x.new_empty(min(self.block, x.shape[0]), shape.batch * shape.outer * shape.rest)

    def _states(self, x: torch.Tensor, memory: list[torch.Tensor]) -> list[torch.Tensor]:
        """x and what the steps but the last make of it."""
        states = [x]
        for shape, matrix, out in zip(self.shapes, self.matrices, memory, strict=False):
            states.append(multiply(shape, matrix, states[-1], out[: x.shape[0]]))
        return states


def compose_chain(x: torch.Tensor, shapes: list[StepShape], matrices: list[torch.Tensor]) -> torch.Tensor:
    """x (rows, in) -> (rows, out) in differentiable operations that any transform of torch understands."""
    for shape, matrix in zip(shapes, matrices, strict=True):
        state = x.reshape(-1, shape.inner, shape.rest)
        x = torch.bmm(matrix.expand(state.shape[0], -1, -1), state) if shape.rest > 1 else state[..., 0] @ matrix.t()
    return x


def multiply(shape: StepShape, matrix, state, out, accumulate: bool = False) -> torch.Tensor:
    """out = or += matrix (outer, inner) times each (inner, rest) of the state; returns `out`."""
    if shape.rest == 1:
        put_product(out.view(-1, shape.outer), state.view(-1, shape.inner), matrix.t(), accumulate)
        return out
    b, c = state.view(-1, shape.inner, shape.rest), out.view(-1, shape.outer, shape.rest)
    if state.device.type == "cpu" and is_one_product(shape, state.dtype.itemsize):
        wide = torch.mm(matrix, b.transpose(0, 1).reshape(shape.inner, -1))
        product = wide.view(shape.outer, -1, shape.rest).transpose(0, 1)
        c.add_(product) if accumulate else c.copy_(product)
    else:
        a = matrix.contiguous().expand(b.shape[0], shape.outer, shape.inner)
        c.baddbmm_(a, b) if accumulate else torch.bmm(a, b, out=c)
    return out


def is_one_product(shape: StepShape, item_size: int) -> bool:
    """Whether a CPU multiplies a permuted copy of the state at once, rather than a batch of small matrices.

    The products of a batch may be too narrow, and in half precision the matrix is copied for each of them.
    """
    if item_size >= 4:
        return 1 < shape.rest < NARROW
    return shape.outer * shape.inner > 3 * (shape.outer + shape.inner) * shape.rest


def pull(shape: StepShape, matrix, d, out, accumulate: bool = False) -> torch.Tensor:
    """The gradient of the state from the gradient `d` of what the step made of it."""
    turned = StepShape(shape.batch, shape.inner, shape.outer, shape.rest)
    return multiply(turned, matrix.t(), d, out[: d.shape[0]], accumulate)


def sums_after_products(shape: StepShape) -> bool:
    """Whether the gradient of a matrix sums small products; otherwise it is one product of permuted copies."""
    return shape.outer * shape.inner < shape.rest * (shape.outer + shape.inner)


def add_gradient(total: torch.Tensor | None, shape: StepShape, d, state) -> torch.Tensor:
    """total (outer, inner) + the sum of d @ state^T over the rows; see `add_product`."""
    if shape.rest == 1:
        return add_product(total, d.view(-1, shape.outer).t(), state.view(-1, shape.inner))
    d, state = d.view(-1, shape.outer, shape.rest), state.view(-1, shape.inner, shape.rest)
    if sums_after_products(shape) and not is_narrow(shape.inner, state):
        products = torch.bmm(d, state.transpose(1, 2))
        return accumulated(total, products.sum(0, dtype=sum_dtype(products)))
    a, b = (each.transpose(0, 1).reshape(each.shape[1], -1) for each in (d, state))
    return add_product(total, a, b.t())
