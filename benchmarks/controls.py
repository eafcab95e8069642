"""Does the adapter use what the backbone has learned? Compares the demo with its controls, over several seeds.

    python benchmarks/controls.py [--seeds 3] [--task_name vader-tweets] [--key value ..]

Trains configs/tt_adapter.json, the whole backbone, the layer norms alone, and the same adapter on a randomly
initialised backbone. Beside them stand linear classifiers on the same splits: on TF-IDF, and on the sentence encoder
that t5-nano was distilled from (downloaded once, 400 MB); these see all rows, whatever is passed to the runs. Prints
the mean and standard deviation of the test accuracy, and writes outputs/controls/TASK/controls.json. Finished runs with
the same configuration are reused; delete outputs/controls after changing the code or the backbone.
"""

import json
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.arguments import Parser, whole  # noqa: E402
from benchmarks.baselines import teacher_probe, tf_idf  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from run_seq2seq import main  # noqa: E402
from seq2seq.data import get_task  # noqa: E402

ROOT = Path(__file__).parent.parent
OUTPUTS = ROOT / "outputs" / "controls"
CONFIGS = {
    "tensor-train adapter": "configs/tt_adapter.json",
    "full fine-tuning": "configs/controls/full_fine_tuning.json",
    "norms only": "configs/controls/norms_only.json",
    "random backbone": "configs/controls/random_backbone.json",
}
BASELINES = {"TF-IDF + logistic regression": tf_idf, "logistic regression on the teacher": teacher_probe}


def results(config: str, task: str, seeds: int, overrides: list[str]) -> list[dict]:
    """Run a configuration on a task with the seeds 1 to `seeds` and return the results of each run."""
    out = OUTPUTS / task / Path(config).stem
    fixed = {
        "task_name": task,
        "seeds": list(range(1, seeds + 1)),
        "output_dir": str(out),
        "overwrite_output_dir": True,
    }
    status = main([str(ROOT / config), *overrides, *(f"--{key}={json.dumps(fixed[key])}" for key in fixed)])
    if status:
        sys.exit(status)
    runs = json.loads((out / "series.json").read_text())["runs"]
    return [json.loads(Path(run, "results.json").read_text()) for run in runs]


def row_of(runs: list[dict]) -> dict:
    """Return what the table says of the runs of one configuration."""
    tested = [next(iter(run["splits"]["test"]["tasks"].values())) for run in runs]
    scores = [task["scores"]["accuracy"] for task in tested]
    return {
        "scores": scores,
        "mean": statistics.mean(scores),
        "deviation": statistics.stdev(scores) if len(scores) > 1 else 0.0,
        "majority": tested[0]["majority"]["accuracy"],
        **runs[0]["parameters"],
    }


def compare(task: str, seeds: int, overrides: list[str]) -> None:
    """Run the demo and its controls on a task, print the table and write controls.json."""
    if "accuracy" not in get_task(task).metrics:
        raise ConfigError(f"--task_name is {task!r}; it must be a task that is measured by its accuracy")
    baselines = {name: baseline(task) for name, baseline in BASELINES.items()}
    table = {name: row_of(results(config, task, seeds, overrides)) for name, config in CONFIGS.items()}
    baselines["majority class"] = next(iter(table.values()))["majority"]
    print(f"{task}, test accuracy")
    for name, row in table.items():
        share = 100 * row["trainable"] / row["backbone"]
        scores = " ".join(f"{score:.2f}" for score in row["scores"])
        print(f"{name:36} {row['mean']:6.2f} +- {row['deviation']:.2f}  ({scores})  trainable {share:.2f}%")
    for name, score in baselines.items():
        print(f"{name:36} {score:6.2f}")
    (OUTPUTS / task / "controls.json").write_text(json.dumps({**table, "baselines": baselines}, indent=2) + "\n")


if __name__ == "__main__":
    parser = Parser(description="Compare the demo with its controls over seeds.", allow_abbrev=False)
    parser.add_argument("--task_name", default="vader-movie", help="the task")
    parser.add_argument(
        "--seeds", type=whole, default=3, help="run seeds 1 .. SEEDS; any other --key value is passed to each run"
    )
    given, overrides = parser.parse_known_args()
    try:
        compare(given.task_name, given.seeds, overrides)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
