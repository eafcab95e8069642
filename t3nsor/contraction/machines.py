"""Speeds at which devices multiply and move numbers, for the cost model.

The rates of the CPU were fitted to measured times of all plans on one core with 512-bit vectors; those of the GPU come
from a data sheet. Machines differ more in speed than in which of two plans is faster.
"""

from dataclasses import dataclass

from t3nsor.contraction.gemm import NARROW

ITEM_SIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
MEBIBYTE = 2**20
PACKED = 2**15  # entries of a left matrix that stay in the fastest cache from one product of a batch to the next


@dataclass(frozen=True)
class Machine:
    """Rates of a device for one width of numbers.

    flops: operations per second of a large GEMM.
    half_m: size of the left dimension at which a GEMM reaches half of that.
    half_k: the same for the inner dimension.
    half_n: the same for the right dimension.
    lanes: numbers in a vector register, which the right dimension fills or wastes; 0: not modelled.
    call: seconds per call.
    item: seconds per matrix of a batch.
    packed: seconds per entry of a left matrix that a batch has to fetch again.
    permuted: seconds per byte of a permuting copy.
    streamed: seconds per byte of main memory.
    block: bytes of a state to keep in cache.
    forward: overhead of the blocks of a chain (slicing, cache misses), as a factor on the time of their products.
    backward: the same for the backward pass.
    """

    flops: float
    half_m: float
    half_k: float
    half_n: float
    lanes: int
    call: float
    item: float
    packed: float
    permuted: float
    streamed: float
    block: float
    forward: float
    backward: float

    def gemm(self, batch: int, m: int, k: int, n: int) -> float:
        """Seconds of one call for `batch` products (m, k) @ (k, n)."""
        if self.lanes and 1 < n < NARROW:
            transposed = batch * n * (m if batch == 1 else m + k)
            wide = (n, m) if batch == 1 else (m, batch * n)
            return self.gemm(1, wide[0], k, max(wide[1], NARROW)) + self.permuted * transposed * 64 / self.lanes
        columns = n + self.half_n
        if self.lanes and n > 1:
            whole, rest = divmod(n, self.lanes)
            columns = self.lanes * (whole + (0.65 if rest else 0))
        work = 2 * batch * (m + self.half_m) * (k + self.half_k) * columns
        packing = batch * max(0, m * k - PACKED) * self.packed if batch > 1 else 0
        return self.call + batch * self.item + packing + work / self.flops


MACHINES = {
    ("cpu", 8): Machine(45e9, 4.2, 3.3, 0, 8, 7e-6, 3e-8, 6e-10, 1.05e-10, 3.6e-11, 1.5 * MEBIBYTE, 1.12, 1.3),
    ("cpu", 4): Machine(95e9, 4.2, 3.3, 0, 16, 7e-6, 3e-8, 3e-10, 1.05e-10, 3.6e-11, 1.5 * MEBIBYTE, 1.12, 1.3),
    ("cpu", 2): Machine(190e9, 7.8, 2.9, 10, 0, 2.8e-5, 2e-7, 3.3e-10, 2.9e-10, 1e-11, 1.5 * MEBIBYTE, 1.1, 1.1),
    ("cuda", 8): Machine(30e12, 32, 16, 32, 0, 6e-6, 0, 0, 1e-12, 4e-13, 256 * MEBIBYTE, 1.18, 1.3),
    ("cuda", 4): Machine(45e12, 32, 16, 32, 0, 6e-6, 0, 0, 1e-12, 4e-13, 256 * MEBIBYTE, 1.18, 1.3),
    ("cuda", 2): Machine(600e12, 64, 64, 64, 0, 6e-6, 0, 0, 1e-12, 4e-13, 256 * MEBIBYTE, 1.18, 1.3),
}


def machine_for(device: str, dtype: str) -> Machine:
    """The rates for a device type and the name of a dtype; every accelerator gets those of a GPU."""
    return MACHINES["cpu" if is_cpu(device) else "cuda", item_size(dtype)]


def is_cpu(device: str) -> bool:
    return device in ("cpu", "meta")


def item_size(dtype: str) -> int:
    """Bytes of a number of the dtype of this name."""
    return ITEM_SIZE.get(dtype, 4)
