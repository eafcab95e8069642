"""Rows times W = weight + dW, dW from its cores, built for a few output columns at a time and never kept.

dW is held as two factors, dW[(i1 i2), (j1 j2)] = sum_r first[j1, i1, r] second[r, j2, i2], and built as rows of the
(out, in) layout of nn.Linear, so that a frozen weight is added in the same pass.
"""

from dataclasses import dataclass

import torch

from t3nsor.contraction import add_product, blocks


@dataclass(frozen=True)
class Dense:
    """The two factors, the frozen weight beside them and how much of W is built at a time.

    first: (m1, n1, r). second: (r, m2, n2). Both of the dtype of the rows.
    weight: (m1 * m2, n1 * n2), or None for dW alone. block: how many of m1.
    """

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor | None
    block: int

    def forward(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None) -> None:
        """y (rows, out) = x (rows, in) W^T + bias."""
        for columns, w in self._pieces():
            if bias is None:
                torch.mm(x, w.t(), out=y[:, columns])
            else:
                torch.addmm(bias[columns], x, w.t(), out=y[:, columns])

    def pull(self, g: torch.Tensor, dx: torch.Tensor) -> None:
        """dx (rows, in) = g (rows, out) W."""
        for k, (columns, w) in enumerate(self._pieces()):
            dx.addmm_(g[:, columns], w, beta=0 if k == 0 else 1)

    def gradients(self, x, g, d_first: torch.Tensor, d_second: torch.Tensor) -> None:
        """Add to d_first and d_second, shaped as the factors, what the dense gradient g^T x contracts to."""
        m1, n1, r = self.first.shape
        _, m2, n2 = self.second.shape
        second = self.second.reshape(r, m2 * n2)
        for modes in blocks(m1, self.block):
            dw = torch.mm(g[:, modes.start * m2 : modes.stop * m2].t(), x)
            dw = dw.view(-1, m2, n1, n2).transpose(1, 2).reshape(-1, m2 * n2)
            of_first = d_first[modes].view(-1, r)  # narrow, but over so few terms faster than its transpose
            if of_first.dtype == dw.dtype:
                of_first.addmm_(dw, second.t())
            else:
                of_first += dw @ second.t()
            add_product(d_second.view(r, m2 * n2), self.first[modes].reshape(-1, r).t(), dw)

    def _pieces(self):
        """(slice of columns, their rows of W), in one reused piece of memory."""
        m1, n1, r = self.first.shape
        _, m2, n2 = self.second.shape
        size = min(self.block, m1)
        memory = self.first.new_empty(size * m2, n1, n2)
        build, right = self._way_to_build(size)
        for modes in blocks(m1, size):
            first, columns = self.first[modes], slice(modes.start * m2, modes.stop * m2)
            w = memory[: len(first) * m2]
            base = None if self.weight is None else self.weight[columns].view(w.shape)
            build(base, first, right, w)
            yield columns, w.view(-1, n1 * n2)

    def _way_to_build(self, size: int):
        """A function that writes base + dW for some output modes, and what it needs of the second factor."""
        r, m2, n2 = self.second.shape
        if built_in_batches(r, n2):
            return _small_products, self.second.transpose(0, 1).expand(size, m2, r, n2).reshape(-1, r, n2)
        return _permuted_product, self.second.reshape(r, m2 * n2)


def built_in_batches(rank: int, run: int) -> bool:
    """Whether small products, with the weight added, beat one product and a copy that permutes runs of numbers."""
    return rank <= min(8, run // 2)


def _small_products(base, first, right, out) -> None:
    """out = base + first @ right, a product (n1, r) @ (r, n2) for each pair of output modes."""
    (m1, n1, r), pairs = first.shape, out.shape[0]
    left = first[:, None].expand(m1, pairs // m1, n1, r).reshape(pairs, n1, r)
    _add_batch(base, left, right[:pairs], out)


def _permuted_product(base, first, right, out) -> None:
    """out = base + first (m1 * n1, r) @ right (r, m2 * n2), which has its modes in another order."""
    (m1, n1, _), n2 = first.shape, out.shape[-1]
    dw = torch.mm(first.reshape(m1 * n1, -1), right).view(m1, n1, -1, n2).transpose(1, 2)
    out = out.view(dw.shape)
    if base is None:
        out.copy_(dw)
    elif out.dtype.itemsize == 2:  # a strided sum of half-precision numbers takes longer than a copy and a plain sum
        out.copy_(dw).add_(base.view(dw.shape))
    else:
        torch.add(base.view(dw.shape), dw, out=out)


def _add_batch(base, left, right, out) -> None:
    """out = base + left @ right for batches of matrices; `base` may have another dtype."""
    if base is None:
        torch.bmm(left, right, out=out)
    elif base.dtype == out.dtype:
        torch.baddbmm(base.view(out.shape), left, right, out=out)
    else:
        torch.bmm(left, right, out=out).add_(base.view(out.shape))
