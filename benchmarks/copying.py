"""Can the decoder of t5-nano say what it must? Fine-tunes it to copy generated strings, and prints the exact matches.

    python benchmarks/copying.py [--rows 2000] [--key value ..]

A string has one to three words of mixed case, digits and signs, such as "qZ7&k 40%". 70% of the rows are trained on,
15% each are for validation and testing. Writes to outputs/copying.
"""

import json
import random
import string
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.arguments import Parser, whole  # noqa: E402
from run_seq2seq import main  # noqa: E402

OUTPUTS = ROOT / "outputs" / "copying"
SIGNS = string.ascii_letters + string.digits + string.punctuation
KEYS = {
    "task_name": "file",
    "source_template": "{text}",
    "target_column": "text",
    "metrics": ["exact"],
    "model_name_or_path": "t5-nano",
    "do_train": True,
    "num_train_epochs": 6,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 300,
    "learning_rate": 1e-3,
    "warmup_steps": 20,
    "train_sampling_strategy": "group_by_length",
    "eval_strategy": "epoch",
    "save_strategy": "no",
    "overwrite_output_dir": True,
    "experiment_name": "copying",
}


def strings(count: int) -> list[str]:
    """Return different random strings."""
    rng, result = random.Random(0), set()
    while len(result) < count:
        result.add(" ".join("".join(rng.choices(SIGNS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 3))))
    return sorted(result)


if __name__ == "__main__":
    parser = Parser(description="Fine-tune t5-nano to copy generated strings.", allow_abbrev=False)
    parser.add_argument("--rows", type=whole, default=2000, help="any other --key value is passed to the run")
    given, overrides = parser.parse_known_args()
    OUTPUTS.mkdir(parents=True, exist_ok=True)
    rows, config = OUTPUTS / "rows.jsonl", OUTPUTS / "copying.json"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in strings(given.rows)))
    config.write_text(json.dumps({**KEYS, "train_file": str(rows), "output_dir": str(OUTPUTS / "run")}, indent=2))
    sys.exit(main([str(config), *overrides]))
