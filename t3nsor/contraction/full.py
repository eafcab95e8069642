"""Rows times a full matrix, dW built from its cores or weight^T + dW, which is never kept.

dW is given as two factors, dW[(i1 i2), (j1 j2)] = sum_r first[i1, j1, r] second[r, i2, j2].
"""

from collections.abc import Callable, Iterator

import torch

from t3nsor.contraction.gemm import add_product, blocks


class FullMatrix:
    """weight^T + dW, or dW alone, built a few output columns at a time, as rows of nn.Linear's (out, in) layout.

    first: (n1, m1, r), of the dtype of the rows.
    second: (r, n2, m2), likewise.
    weight: (m1 * m2, n1 * n2), or None.
    modes_per_block: how many of the m1 output modes are built at a time.
    """

    def __init__(
        self, first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor | None, modes_per_block: int
    ) -> None:
        self.first, self.second = first.transpose(0, 1).contiguous(), second.transpose(1, 2).contiguous()
        self.weight, self.modes_per_block = weight, modes_per_block

    def forward(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Set y (rows, out) = x (rows, in) W + bias."""
        for columns, w in self._blocks():
            if bias is None:
                torch.mm(x, w.t(), out=y[:, columns])
            else:
                torch.addmm(bias[columns], x, w.t(), out=y[:, columns])

    def input_gradient(self, g: torch.Tensor, dx: torch.Tensor) -> None:
        """Set dx (rows, in) = g (rows, out) W^T."""
        for k, (columns, w) in enumerate(self._blocks()):
            dx.addmm_(g[:, columns], w, beta=0 if k == 0 else 1)

    def factor_gradients(self, x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        """The gradients of the two factors, from that of the matrix, g^T x."""
        m1, n1, r = self.first.shape
        _, m2, n2 = self.second.shape
        second = self.second.reshape(r, m2 * n2)
        d_first: list[torch.Tensor] = []
        d_second: torch.Tensor | None = None
        for modes in blocks(m1, self.modes_per_block):
            dw = torch.mm(g[:, modes.start * m2 : modes.stop * m2].t(), x)
            dw = dw.view(-1, m2, n1, n2).transpose(1, 2).reshape(-1, m2 * n2)
            d_first.append(dw @ second.t())  # narrow, but over so few terms faster than its transpose
            d_second = add_product(d_second, self.first[modes].reshape(-1, r).t(), dw)
        assert d_second is not None  # there is at least one block
        return [torch.cat(d_first).view(m1, n1, r).transpose(0, 1), d_second.view(r, m2, n2).transpose(1, 2)]

    def _blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield (slice of columns, their rows of W); all W share one buffer."""
        m1, n1, _ = self.first.shape
        _, m2, n2 = self.second.shape
        size = min(self.modes_per_block, m1)
        memory = self.first.new_empty(size * m2, n1, n2)
        build, right = self._builder(size)
        for modes in blocks(m1, size):
            first, columns = self.first[modes], slice(modes.start * m2, modes.stop * m2)
            w = memory[: len(first) * m2]
            base = None if self.weight is None else self.weight[columns].view(w.shape)
            build(base, first, right, w)
            yield columns, w.view(-1, n1 * n2)

    def _builder(self, size: int) -> tuple[Callable[..., None], torch.Tensor]:
        """The function that writes base + dW for `size` output modes, and the second factor in the form it takes."""
        r, m2, n2 = self.second.shape
        if builds_in_batches(r, n2):
            return _batched_product, self.second.transpose(0, 1).expand(size, m2, r, n2).reshape(-1, r, n2)
        return _permuted_product, self.second.reshape(r, m2 * n2)


def builds_in_batches(rank: int, run: int) -> bool:
    """True if small products that add the weight beat one product and a copy that permutes runs of `run` numbers."""
    return rank <= min(8, run // 2)


def _batched_product(base: torch.Tensor | None, first: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Set out = base + first @ right, one product (n1, r) @ (r, n2) for each pair of output modes."""
    (m1, n1, r), pairs = first.shape, out.shape[0]
    left = first[:, None].expand(m1, pairs // m1, n1, r).reshape(pairs, n1, r)
    right = right[:pairs]
    if base is None:
        torch.bmm(left, right, out=out)
    elif base.dtype == out.dtype:
        torch.baddbmm(base, left, right, out=out)
    else:
        torch.bmm(left, right, out=out).add_(base)


def _permuted_product(base: torch.Tensor | None, first: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Set out = base + first (m1 * n1, r) @ right (r, m2 * n2), with the modes of the product permuted."""
    (m1, n1, _), n2 = first.shape, out.shape[-1]
    dw = torch.mm(first.reshape(m1 * n1, -1), right).view(m1, n1, -1, n2).transpose(1, 2)
    out = out.view(dw.shape)
    if base is None:
        out.copy_(dw)
    elif out.dtype.itemsize == 2:  # a strided sum in half precision takes longer than a copy and a plain sum
        out.copy_(dw).add_(base.view(dw.shape))
    else:
        torch.add(base.view(dw.shape), dw, out=out)
