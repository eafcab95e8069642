"""What differs between devices: which have float64, and how many networks are fitted together."""

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
