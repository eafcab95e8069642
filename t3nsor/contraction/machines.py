"""How fast a device multiplies and moves numbers: what the cost model knows of it.

The rates of the CPU were fitted to measured times of all plans on one core with vectors of 512 bits; those of the GPU
follow a data sheet. Machines differ in speed more than in which of two plans is faster.
"""

from dataclasses import dataclass

from t3nsor.contraction.gemm import NARROW

ITEM_SIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
MEBIBYTE = 2**20
PACKED = 2**15  # numbers of a left matrix that stay in the fastest cache from one product of a batch to the next


@dataclass(frozen=True)
class Machine:
    """Rates of a device for one width of numbers.

    flops: of a large GEMM, per second. half_m, half_k, half_n: the size of the left, the inner and the right dimension
    at which a GEMM reaches half of that. lanes: numbers in a vector, which the right dimension fills or wastes; 0: no
    matter. call, item: seconds for a call, and for one matrix of a batch. packed: for each number of a left matrix
    that a batch has to fetch again. permuted, streamed: for a byte that a copy puts elsewhere, and for a byte of main
    memory. block: bytes of a state to keep in cache. forward, backward: what the blocks of a chain cost beside their
    products, as a factor: slices, and what does not stay in cache.
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
            turned = batch * n * (m if batch == 1 else m + k)
            wide = (n, m) if batch == 1 else (m, batch * n)
            return self.gemm(1, wide[0], k, max(wide[1], NARROW)) + self.permuted * turned * 64 / self.lanes
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
    """The rates for a type of device and the name of a dtype; those of a GPU for every accelerator."""
    return MACHINES["cpu" if is_cpu(device) else "cuda", item_size(dtype)]


def is_cpu(device: str) -> bool:
    return device in ("cpu", "meta")


def item_size(dtype: str) -> int:
    """Bytes of a number."""
    return ITEM_SIZE.get(dtype, 4)
