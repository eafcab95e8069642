"""What is known of the speed of this machine: fitted by `python -m t3nsor.calibrate`, or assumed.

One file for each device and number of threads, in `t3nsor` under XDG_CACHE_HOME or ~/.cache, holds rates for each size
of numbers, and the plans that were fastest when they were timed.
"""

import hashlib
import json
import os
import platform
import warnings
from contextlib import suppress
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

ITEM_SIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}
MEBIBYTE = 2**20


class Rates(NamedTuple):
    """Seconds for each thing that plans do.

    multiply: a multiplication and addition of a large GEMM.
    touch: an entry of an operand or a result of a GEMM.
    move: an entry of a permuting copy.
    call: a call.
    item: a product of a batch.
    """

    multiply: float
    touch: float
    move: float
    call: float
    item: float


ASSUMED = {  # for one thread of a CPU; further ones make large products faster, and little else
    ("cpu", 8): Rates(6.2e-11, 2e-10, 2.6e-9, 5e-6, 5e-7),
    ("cpu", 4): Rates(3.1e-11, 1e-10, 1.3e-9, 5e-6, 5e-7),
    ("cpu", 2): Rates(3.1e-11, 1e-10, 1.3e-9, 5e-6, 5e-7),
    ("cuda", 8): Rates(6.7e-14, 4e-12, 1.6e-11, 6e-6, 0.0),
    ("cuda", 4): Rates(4.4e-14, 2e-12, 8e-12, 6e-6, 0.0),
    ("cuda", 2): Rates(3.3e-15, 1e-12, 4e-12, 6e-6, 0.0),
}


class Machine:
    """A device with its rates and the plans chosen by measuring.

    kind: "cpu" or "cuda".
    name: what the figures hold for: the device, the threads in use, torch.
    threads: that share the products on a CPU.
    fitted: the rates measured here, by the size of a number in bytes.
    choices: the code of the fastest plan of each problem that was measured.
    """

    def __init__(self, kind: str, name: str, threads: int = 1):
        self.kind, self.name, self.threads = kind, name, threads
        self.fitted: dict[int, Rates] = {}
        self.choices: dict[str, str] = {}
        self._load()

    def rates(self, dtype: str) -> Rates:
        size = item_size(dtype)
        assumed = ASSUMED[self.kind, size]
        return self.fitted.get(size) or assumed._replace(multiply=assumed.multiply / self.threads)

    @cached_property
    def path(self) -> Path:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "t3nsor"
        return folder / f"{self.kind}-{hashlib.sha256(self.name.encode()).hexdigest()[:12]}.json"

    def source(self, dtype: str) -> str:
        """Where the rates for a dtype come from, in words."""
        if item_size(dtype) in self.fitted:
            return "rates fitted on this machine"
        return "rates assumed for a generic machine; python -m t3nsor.calibrate measures those of this one"

    def save(self) -> bool:
        """Write the file, whole or not at all. Warns, and returns False, if that cannot be done."""
        found = {"machine": self.name, "rates": self.fitted, "choices": self.choices}
        unfinished = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(json.dumps(found, indent=1))
            unfinished.replace(self.path)
            return True
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink()
            what = f"{self.path} cannot be written: {error.strerror}; what was measured is lost when this process ends"
            warnings.warn(f"{what}; XDG_CACHE_HOME names another directory", stacklevel=2)
            return False

    def _load(self) -> None:
        try:
            found = json.loads(self.path.read_text())
            if found["machine"] != self.name:
                raise ValueError(f"it is of another machine, {found['machine']}")
            fitted = {int(size): Rates(*map(float, rates)) for size, rates in found["rates"].items()}
            if not all(0 <= rate < 1 for rates in fitted.values() for rate in rates):
                raise ValueError("a rate is out of range")
            choices = {str(key): str(code) for key, code in found["choices"].items()}
        except (FileNotFoundError, NotADirectoryError):
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            what = getattr(error, "strerror", None) or str(error) or type(error).__name__
            warnings.warn(f"{self.path} is ignored ({what}); python -m t3nsor.calibrate writes it anew", stacklevel=2)
            return
        self.fitted, self.choices = fitted, choices


def machine(device: str) -> Machine:
    """What is known of a device, by the name of its type, with the threads in use; every accelerator is a GPU."""
    if is_cpu(device):
        return _machine("cpu", torch.get_num_threads())
    return _machine("cuda", torch.cuda.current_device() if device == "cuda" and torch.cuda.is_available() else -1)


@lru_cache
def _machine(kind: str, number: int) -> Machine:
    if kind == "cpu":
        device = f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}, threads: {number}"
    else:
        device = "unknown accelerator" if number < 0 else torch.cuda.get_device_name(number)
    return Machine(kind, f"{device}, torch {torch.__version__}", number if kind == "cpu" else 1)


def _processor() -> str:
    with suppress(OSError, KeyError):
        lines = [line.split(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        found = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
        return "{model name}, family {cpu family}, model {model}".format_map(found)
    return platform.processor() or platform.machine()


def is_cpu(device: str) -> bool:
    return device in ("cpu", "meta")


def item_size(dtype: str) -> int:
    """Bytes of a number of the dtype of this name."""
    return ITEM_SIZE.get(dtype, 4)
