"""Records of a sweep whose truth is known."""

import json
from pathlib import Path

import numpy as np

TASKS = {"vader-movie": 0.0, "vader-nyt": -10.0, "vader-tweets": 10.0}
SEEDS = (1, 2, 3)
SCATTER = 0.4  # standard deviation over seeds
TRUTH = {  # name: group, parameters, score
    "small": ("others", 100, 70.0),
    "LoRA 1": ("LoRA", 1000, 75.0),
    "LoRA 2": ("LoRA", 10_000, 78.0),
    "TT 1": ("TT", 1100, 80.0),
    "TT 2": ("TT", 9000, 78.0),
    "TT 3": ("TT", 100_000, 79.0),
    "words": ("others", 50, 90.0),
}


def written_cells(path: Path, truth: dict[str, tuple], compare=None, without_backbone=()) -> Path:
    """Write records. truth: name -> (group, parameters, score[, grid]); each task adds its own number to the score."""
    generator = np.random.default_rng(0)
    lines = [{"sweep": {"compare": compare} if compare else {}}]
    for name, (group, parameters, score, *grid) in truth.items():
        place = {"row": name, "entry": name.split(" (")[0].split()[0], "group": group, "grid": grid[0] if grid else {}}
        for task, offset in TASKS.items():
            for seed in SEEDS:
                value = round(score + offset + SCATTER * generator.normal(), 4)
                lines.append(
                    {
                        "cell": f"{name}-{task}-{seed}",
                        "stage": "report",
                        **place,
                        "task": task,
                        "seed": seed,
                        "chosen": {"learning_rate": 0.003},
                        "method": "use_LoRA",
                        "threads": 1,
                        "machine": "a CPU",
                        "trainable": parameters,
                        "backbone": 0 if name in without_backbone else 10**7,
                        "seconds": 30.0,
                        "cpu_seconds": 29.0,
                        "memory_mib": 800,
                        "scores": {"test": {"accuracy": value, "loss": 0.4}, "validation": {"accuracy": value}},
                        "average": {"test": value, "validation": value},
                        "majority": {"test": 55.0},
                        "rows": {"test": 500},
                        "hash": {"test": ["a1"]},
                        "history": [[25, 1.0], [50, 0.5], [50, None, value]],
                    }
                )
    path.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))
    return path
