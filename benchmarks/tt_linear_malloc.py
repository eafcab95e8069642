"""The same memory allocator for all contestants of tt_linear.py.

glibc returns blocks over 32 MB to the system each time, which slows down contestants that allocate large ones;
thresholds that stop this must be in the environment when a process starts.
"""

import os
import sys

THRESHOLDS = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def start_again() -> None:
    """Restart the process with the thresholds that are missing from its environment."""
    if not THRESHOLDS.keys() <= os.environ.keys():
        given = THRESHOLDS | os.environ
        print("starting again with", *(f"{name}={given[name]}" for name in THRESHOLDS), flush=True)
        os.execve(sys.executable, sys.orig_argv, given)
