"""How many pieces should the tokenizer of t5-nano have? The tokens of a sentence, the size, and what each start knows.

    python benchmarks/vocabulary.py [SIZE ..]

SIZE: numbers of pieces; default: 8192, 16384, 24576, 32768. Trains a tokenizer on the text of
configs/pretrain/t5_nano_encoder.json, starts the backbone of that file as a linear map from its pieces to the
teacher's vectors, and prints the accuracy of a probe of its encoder on vader-movie. What is needed for pre-training is
needed here; the teacher reads one rated sentence in four.
"""

import statistics
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch  # noqa: E402
from transformers import set_seed  # noqa: E402

from benchmarks.arguments import Parser, whole  # noqa: E402
from benchmarks.baselines import probe, splits_of  # noqa: E402
from common.errors import ConfigError  # noqa: E402
from seq2seq.arguments import ModelArguments  # noqa: E402
from seq2seq.data.distillation import Distillation  # noqa: E402
from seq2seq.data.unlabelled import rated_sentences  # noqa: E402
from seq2seq.initial_weights import initialise  # noqa: E402
from seq2seq.models import load_backbone  # noqa: E402
from seq2seq.pretraining import LEAST, train_tokenizer  # noqa: E402
from seq2seq.sentence_encoder import WordVectors, projection, word_vectors  # noqa: E402
from seq2seq.settings import load_settings  # noqa: E402

CONFIG = Path(__file__).parent.parent / "configs" / "pretrain" / "t5_nano_encoder.json"
TASK = "vader-movie"


def report(size: int, texts: list[str], taught: list[str], vectors: WordVectors, arguments: ModelArguments) -> None:
    """Print a row of the table. texts: what the tokenizer is trained on. vectors: the teacher's, of `taught`."""
    tokenizer = train_tokenizer(texts, size)
    set_seed(42)
    model = load_backbone(arguments, tokenizer).eval()
    initialise(model, tokenizer, taught, vectors)
    tokens = statistics.mean(len(tokenizer(text)["input_ids"]) for text in splits_of(TASK)[1][0])
    validation, test = probe(TASK, tokenizer, lambda inputs: [model.encoder(**inputs).last_hidden_state])
    print(
        f"{size:6} pieces  {model.num_parameters():11,} parameters  {tokens:.1f} tokens a sentence  "
        f"validation {validation:.2f}  test {test:.2f}",
        flush=True,
    )


def compare(sizes: list[int]) -> None:
    """Print the table."""
    settings, _ = load_settings(str(CONFIG), [])
    texts = list(Distillation(settings.data).examples("train")["source"])
    taught = [text for part in rated_sentences("train").values() for text in part[::4]]
    vectors = word_vectors(taught, projection(taught))
    for size in sizes:
        report(size, texts, taught, vectors, settings.model)


if __name__ == "__main__":
    parser = Parser(description="Compare sizes of the vocabulary.", allow_abbrev=False)
    sizes = [8192, 16384, 24576, 32768]
    parser.add_argument("sizes", nargs="*", type=partial(whole, least=LEAST), default=sizes, help="numbers of pieces")
    try:
        with torch.no_grad():
            compare(parser.parse_args().sizes)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
