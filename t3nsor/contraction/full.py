"""Rows times a full matrix, dW from its cores or weight^T + dW, which is never kept.

dW is held as two factors, dW[(i1 i2), (j1 j2)] = sum_r first[i1, j1, r] second[r, i2, j2].
"""

import torch

from t3nsor.contraction.gemm import add_product, blocks


class Whole:
    """dW alone, built at once, (in, out)."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor):
        """first: (n1, m1, r). second: (r, n2, m2). Both of the dtype of the rows."""
        (self.n1, self.m1, r), (_, self.n2, self.m2) = first.shape, second.shape
        self.first, self.second = first.reshape(-1, r), second.reshape(r, -1)

    def matrix(self) -> torch.Tensor:
        """(n1 * n2, m1 * m2), differentiable."""
        product = (self.first @ self.second).view(self.n1, self.m1, self.n2, self.m2)
        return product.transpose(1, 2).reshape(self.n1 * self.n2, -1)

    def forward(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None) -> None:
        """y (rows, out) = x (rows, in) dW + bias."""
        torch.mm(x, self.matrix(), out=y) if bias is None else torch.addmm(bias, x, self.matrix(), out=y)

    def pull(self, g: torch.Tensor, dx: torch.Tensor) -> None:
        """dx (rows, in) = g (rows, out) dW^T."""
        torch.mm(g, self.matrix().t(), out=dx)

    def gradients(self, x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        """The gradients of the two factors from the dense one, x^T g."""
        dw = (x.t() @ g).view(self.n1, self.n2, self.m1, self.m2).transpose(1, 2).reshape(len(self.first), -1)
        of_first, of_second = dw @ self.second.t(), self.first.t() @ dw
        return [of_first.view(self.n1, self.m1, -1), of_second.view(-1, self.n2, self.m2)]


class Pieces:
    """weight^T + dW, or dW alone, a few output columns at a time, as rows of the (out, in) layout of nn.Linear."""

    def __init__(self, first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor | None, block: int):
        """first: (n1, m1, r). second: (r, n2, m2). Both of the dtype of the rows. weight: (m1 * m2, n1 * n2) or None.

        block: how many of m1 are built at a time.
        """
        self.first, self.second = first.transpose(0, 1).contiguous(), second.transpose(1, 2).contiguous()
        self.weight, self.block = weight, block

    def forward(self, x: torch.Tensor, y: torch.Tensor, bias: torch.Tensor | None) -> None:
        """y (rows, out) = x (rows, in) W + bias."""
        for columns, w in self._pieces():
            if bias is None:
                torch.mm(x, w.t(), out=y[:, columns])
            else:
                torch.addmm(bias[columns], x, w.t(), out=y[:, columns])

    def pull(self, g: torch.Tensor, dx: torch.Tensor) -> None:
        """dx (rows, in) = g (rows, out) W^T."""
        for k, (columns, w) in enumerate(self._pieces()):
            dx.addmm_(g[:, columns], w, beta=0 if k == 0 else 1)

    def gradients(self, x: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
        """The gradients of the two factors from the dense one, g^T x."""
        m1, n1, r = self.first.shape
        _, m2, n2 = self.second.shape
        second = self.second.reshape(r, m2 * n2)
        of_first, of_second = [], None
        for modes in blocks(m1, self.block):
            dw = torch.mm(g[:, modes.start * m2 : modes.stop * m2].t(), x)
            dw = dw.view(-1, m2, n1, n2).transpose(1, 2).reshape(-1, m2 * n2)
            of_first.append(dw @ second.t())  # narrow, but over so few terms faster than its transpose
            of_second = add_product(of_second, self.first[modes].reshape(-1, r).t(), dw)
        of_first = torch.cat(of_first).view(m1, n1, r)
        return [of_first.transpose(0, 1), of_second.view(r, m2, n2).transpose(1, 2)]

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
    right = right[:pairs]
    if base is None:
        torch.bmm(left, right, out=out)
    elif base.dtype == out.dtype:
        torch.baddbmm(base, left, right, out=out)
    else:
        torch.bmm(left, right, out=out).add_(base)


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
