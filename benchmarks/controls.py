"""Does the adapter use what the backbone knows? The demo against its controls, over seeds.

    python benchmarks/controls.py [--seeds 3] [--key value ..]

Runs configs/tt_adapter.json, the layer norms alone, and the same adapter on a backbone with random weights; prints the
mean and standard deviation of the test accuracy and writes outputs/controls/controls.json. A finished run is not
repeated while its configuration is the same; remove outputs/controls after a change of the code or of the backbone.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.errors import ConfigError  # noqa: E402
from run_seq2seq import main  # noqa: E402

ROOT = Path(__file__).parent.parent
OUTPUTS = ROOT / "outputs" / "controls"
CONFIGS = {
    "tensor-train adapter": "configs/tt_adapter.json",
    "norms only": "configs/controls/norms_only.json",
    "random backbone": "configs/controls/random_backbone.json",
}


def results(config: str, seeds: int, overrides: list[str]) -> list[dict]:
    """The results of a configuration's runs, one for each of the seeds 1 to `seeds`."""
    out = OUTPUTS / Path(config).stem
    fixed = {"seeds": list(range(1, seeds + 1)), "output_dir": str(out), "overwrite_output_dir": True}
    status = main([str(ROOT / config), *overrides, *(f"--{key}={json.dumps(fixed[key])}" for key in fixed)])
    if status:
        sys.exit(status)
    runs = json.loads((out / "series.json").read_text())["runs"]
    return [json.loads(Path(run, "results.json").read_text()) for run in runs]


def compare(seeds: int, overrides: list[str]) -> None:
    table = {}
    for name, config in CONFIGS.items():
        runs = results(config, seeds, overrides)
        tested = [next(iter(run["splits"]["test"]["tasks"].values())) for run in runs]
        scores = [task["scores"]["accuracy"] for task in tested]
        table[name] = {
            "scores": scores,
            "mean": statistics.mean(scores),
            "deviation": statistics.stdev(scores) if seeds > 1 else 0.0,
            "majority": tested[0]["majority"]["accuracy"],
            **runs[0]["parameters"],
        }
    for name, row in table.items():
        share = 100 * row["trainable"] / row["backbone"]
        scores = " ".join(f"{score:.2f}" for score in row["scores"])
        print(f"{name:22} {row['mean']:6.2f} +- {row['deviation']:.2f}  ({scores})  trainable {share:.2f}%")
    print(f"{'majority class':22} {next(iter(table.values()))['majority']:6.2f}")
    (OUTPUTS / "controls.json").write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The demo against its controls, over seeds.", allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 .. SEEDS; further --key value go to each run")
    given, overrides = parser.parse_known_args()
    try:
        if given.seeds < 1:
            raise ConfigError(f"--seeds is {given.seeds}; it must be at least 1")
        compare(given.seeds, overrides)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
