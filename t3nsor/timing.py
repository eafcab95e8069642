"""Short runs timed against each other."""

import random
import time
from collections.abc import Callable
from typing import Any

import torch

AT_LEAST = 2e-4  # seconds that are timed together: shorter runs are repeated


def in_turns(runs: dict[Any, Callable[[], object]], device: torch.device, rounds: int) -> dict[Any, float]:
    """The least seconds of each run, which other work disturbs least; after two rounds only of those near the best.

    A round has every run once, in random order: each finds in the caches what the previous one left.
    """
    order = random.Random(0)  # leaves the global generator as it is
    next(iter(runs.values()))()  # the very first call of a process may import
    seconds = {name: [clock(run, device)] for name, run in runs.items()}
    repeats = max(1, int(AT_LEAST / max(min(seconds.values())[0], 1e-9)))
    for number in range(rounds):
        least = {name: min(times) for name, times in seconds.items()}
        near = [name for name in runs if number < 2 or least[name] <= 1.2 * min(least.values())]
        for name in order.sample(near, len(near)):
            seconds[name].append(clock(runs[name], device, repeats))
    return {name: min(times[1:]) for name, times in seconds.items()}


def clock(run: Callable[[], object], device: torch.device, repeats: int = 1) -> float:
    """Seconds of one call; on a single thread of a CPU those that it was not interrupted."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    now = time.thread_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    wait()
    start = now()
    for _ in range(repeats):
        run()
    wait()
    return (now() - start) / repeats
