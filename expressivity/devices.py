"""What differs between devices: which have float64, how many networks are fitted together, and what memory is free."""

import contextlib
import os
from pathlib import Path

import torch

WITHOUT_FLOAT64 = {"mps"}
# The most networks of a stack, and the bytes of its data, activations, parameters and optimiser state: larger stacks
# are no faster on a CPU.
ON_A_CPU = 2048, 2**29
# Elsewhere, where launches decide, as many as a batched product takes and as a part of the free memory holds. Assumed,
# not measured.
ELSEWHERE, PART = 2**15, 4


def stack_limits(device: torch.device) -> tuple[int, int]:
    """Return the most networks to fit together on a device, and the most bytes that they may take."""
    if device.type != "cuda":
        return ON_A_CPU if device.type == "cpu" else (ELSEWHERE, ON_A_CPU[1])
    free, _ = torch.cuda.mem_get_info(device)
    return ELSEWHERE, max(ON_A_CPU[1], free // PART)


def where_float64_is(x: torch.Tensor) -> torch.Tensor:
    """x, or a copy on the CPU if its device has no float64."""
    return x.cpu() if x.device.type in WITHOUT_FLOAT64 else x


def available_memory() -> int:
    """Return the bytes of memory that a process can still take on this machine, within the limit of its container."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    with contextlib.suppress(OSError, ValueError):  # ValueError: "max", for no limit
        group = Path("/sys/fs/cgroup")
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(0, limit - used))
    return free
