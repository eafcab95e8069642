"""All that this project has to know of a GPU, by one command within 8 minutes.

    python benchmarks/gpu.py [--only checks layers ..] [--out outputs/benchmarks/gpu]
    python benchmarks/gpu.py --device cpu --quick     # tiny sizes, to see that it runs

Its parts, in order of importance: checks (values and gradients of the engine, merging and whole T5s in float32,
bfloat16 and float16), calibration (python -m t3nsor.calibrate, which writes its usual file), layers (branches beside a
frozen layer at 512 to 16,384 rows), steps (training_step.py), generation (merged_inference.py), input (is the device
kept busy?) and expressivity (networks fitted per second). Each runs in a process of its own, for a limited time; one
that fails or takes too long is noted, with what it had measured until then, and the next goes on. Writes OUT.json after
every part, and OUT.md, tables for docs/performance.md. Ends with status 1 if anything failed.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent)]  # the packages before these files
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # so that a library asking for CUDA does not start it

import gpu_checks  # noqa: E402
import gpu_parts  # noqa: E402
from arguments import Parser  # noqa: E402
from gpu_layers import layers  # noqa: E402
from gpu_process import rows_of  # noqa: E402
from gpu_report import about, page  # noqa: E402

from common.errors import ConfigError  # noqa: E402
from common.files import check_writable, write_file, write_json  # noqa: E402


class Part(NamedTuple):
    """run(device, quick): yields (title of a table, row). limit: its seconds."""

    run: Callable[[str, bool], Iterator[tuple[str, dict[str, object]]]]
    limit: int


PARTS = {
    "checks": Part(gpu_checks.checks, 60),
    "calibration": Part(gpu_parts.calibration, 75),
    "layers": Part(layers, 85),
    "steps": Part(gpu_parts.steps, 135),
    "generation": Part(gpu_parts.generation, 30),
    "input": Part(gpu_parts.input_path, 30),
    "expressivity": Part(gpu_parts.networks, 30),
}
STARTING = 60  # seconds in which a device must answer


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(description="Check and measure a GPU.", allow_abbrev=False)
    add = parser.add_argument
    add("--device", choices=["cuda", "cpu"], default="cuda")
    add("--quick", action="store_true", help="tiny sizes, which measure nothing")
    add("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    add("--out", default="outputs/benchmarks/gpu", help="writes OUT.json and OUT.md")
    args = parser.parse_args(arguments)
    if not Path(args.out).name or args.out.endswith("/"):
        parser.error(f"--out is {args.out!r}; it must be a path with a file name, without an extension")
    return args


def measured(name: str, args: argparse.Namespace) -> dict:
    """The result of one part: its tables by title, how long it took, and what failed."""
    start, part = time.monotonic(), PARTS[name]
    rows, failure = rows_of(part.run, part.limit, args.device, args.quick)
    tables: dict[str, list[dict]] = {}
    for title, row in rows:
        tables.setdefault(title, []).append(row)
    failures = [f"{title}: {row['first failure']}" for title, row in rows if row.get("failed")]
    failures += [failure] if failure else []
    return {"seconds": time.monotonic() - start, "limit": part.limit, "failures": failures, "tables": tables}


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    described, failure = rows_of(about, STARTING, args.device)
    if failure:
        print(f"error: {failure}", file=sys.stderr)
        return 2
    command = " ".join(["python benchmarks/gpu.py", *arguments])
    found = {"command": command, "machine": dict(described), "parts": {}}
    try:
        check_writable(Path(args.out).parent, "--out")
        print(", ".join(f"{name}: {value}" for name, value in described), flush=True)
        for name in [name for name in PARTS if name in args.only]:
            part = found["parts"][name] = measured(name, args)
            write_json(f"{args.out}.json", found)
            write_file(f"{args.out}.md", page(found))
            rows = sum(map(len, part["tables"].values()))
            print(f"{name}: {rows} rows in {part['seconds']:.1f} s", *part["failures"], sep="\n  failed: ", flush=True)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}.json, {args.out}.md")
    return 1 if any(part["failures"] for part in found["parts"].values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
