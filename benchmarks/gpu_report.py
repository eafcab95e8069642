"""The machine that gpu.py measured, and the page of tables that it writes."""

import platform
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata

import torch
from tt_linear_report import machine

from common.errors import ConfigError

PACKAGES = ("transformers", "peft", "datasets")


def about(device: str) -> Iterator[tuple[str, str]]:
    """What the figures hold for: (name, value). Raises ConfigError for CUDA where there is none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device is cuda, but torch finds no CUDA device; --device cpu --quick tries the parts")
    found = machine(device, torch.get_num_threads(), ())
    for name in ("device", "cpu", "cores", "threads", "python", "torch"):
        yield name, str(found[name])
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        yield "compute capability", f"{major}.{minor}"
        yield "memory of the device", f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.0f} GiB"
        yield "driver", driver()
        yield "CUDA of torch", str(torch.version.cuda)
        matmul = torch.backends.cuda.matmul
        state = "on" if torch.get_float32_matmul_precision() != "highest" else "off"
        yield "TF32", f"{state} in products of float32, but where a table says tf32"
        for name in ("bf16", "fp16"):
            allowed = getattr(matmul, f"allow_{name}_reduced_precision_reduction")
            yield f"sums of {name} in {name}", "allowed" if allowed else "not allowed"
    else:
        yield "TF32", "does not apply to a CPU"
    yield "random numbers", "operands from generators with seed 0, drawn in their own dtype"
    yield "system", platform.platform()
    for package in PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:
            yield package, "not installed"


def driver() -> str:
    """The version of the driver, by nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return "unknown, as there is no nvidia-smi"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=20)
    return found.stdout.strip().partition("\n")[0] or f"unknown, as nvidia-smi ended with {found.returncode}"


def page(found: dict) -> str:
    """The report as markdown."""
    lines = ["# Measured on " + found["machine"].get("device", "?"), "", f"Printed by `{found['command']}`.", ""]
    lines += table([{"": name, "value": value} for name, value in found["machine"].items()])
    for name, part in found["parts"].items():
        lines += [f"## {name}", "", f"{part['seconds']:.0f} s of at most {part['limit']} s."]
        lines += [f"**Failed:** {failure}" for failure in part["failures"]] + [""]
        for title, rows in part["tables"].items():
            lines += [f"**{title}**", "", *table(rows)]
    return "\n".join(lines)


def table(rows: list[dict]) -> list[str]:
    """A markdown table of rows with the same columns, and an empty line. Columns that are empty are left out."""
    columns = [name for name in rows[0] if any(shown(row[name]) for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return [*lines, *("| " + " | ".join(shown(row[name]) for name in columns) + " |" for row in rows), ""]


def shown(value: object) -> str:
    """A cell: numbers with three or four digits."""
    if isinstance(value, float):
        if value and not 1e-3 <= abs(value) < 1e6:
            return f"{value:.1e}"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    return str(value).replace("|", r"\|").replace("\n", " ")
