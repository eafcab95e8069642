"""What does an encoder know? Logistic regression on the mean states of sentences, on the embedded tasks.

    python benchmarks/probe.py [MODEL ..]

MODEL: t5-nano, which is the default, or the directory of a T5 with its tokenizer. Prints the accuracy on the validation
split, by which the penalty is chosen, and on the test split.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.arguments import Parser  # noqa: E402
from benchmarks.baselines import probe  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from seq2seq.arguments import ModelArguments  # noqa: E402
from seq2seq.models import load_backbone, load_tokenizer  # noqa: E402

TASKS = ("vader-movie", "vader-amazon", "vader-tweets", "vader-nyt")


def report(name: str) -> None:
    """Print the accuracies of a model."""
    arguments = ModelArguments(model_name_or_path=name)
    tokenizer = load_tokenizer(arguments, None)
    encoder = load_backbone(arguments, tokenizer).eval().encoder
    for task in TASKS:
        validation, test = probe(task, tokenizer, lambda inputs: [encoder(**inputs).last_hidden_state])
        print(f"{name}  {task:12}  validation {validation:.2f}  test {test:.2f}")


if __name__ == "__main__":
    parser = Parser(description="Probe the encoder of a T5.", allow_abbrev=False)
    parser.add_argument("models", nargs="*", default=["t5-nano"], help="models to probe")
    try:
        for model in parser.parse_args().models:
            report(model)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
