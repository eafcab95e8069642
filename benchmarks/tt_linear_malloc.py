"""The same memory allocator for all contestants of tt_linear.py.

glibc gives blocks over 32 MB back to the system each time, which punishes whoever allocates large ones; thresholds that
stop this have to be in the environment when a process starts.
"""

import os
import sys

THRESHOLDS = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**34)}


def start_again() -> None:
    """Start the process again with the thresholds, those that the environment lacks."""
    if not THRESHOLDS.keys() <= os.environ.keys():
        given = THRESHOLDS | os.environ
        print("starting again with", *(f"{name}={given[name]}" for name in THRESHOLDS), flush=True)
        os.execve(sys.executable, sys.orig_argv, given)
