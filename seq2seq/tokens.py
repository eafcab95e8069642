"""From the texts of a run to its tokens: the words of labels, what is lost, how long answers are."""

from collections.abc import Iterator
from itertools import chain

from common.errors import ConfigError, shortened, warn_once
from seq2seq.data.batches import TaskRows, longest_target, tokenise
from seq2seq.data.losses import check_alike
from seq2seq.data_config import saved_with, set_words
from seq2seq.settings import Settings


def training_sources(texts: dict[str, list[TaskRows]]) -> Iterator[str] | None:
    """Return the sources of training, from which a tokenizer may be learned; null if the run does not train."""
    if "train" not in texts:
        return None
    return chain.from_iterable(rows.texts["source"][:] for rows in texts["train"])


def tokenise_all(texts: dict[str, list[TaskRows]], tokenizer, settings: Settings) -> dict[str, list[TaskRows]]:
    """Return the rows of each split with their tokens; print which words stand for labels."""
    tasks = {rows.task.name: rows.task for parts in texts.values() for rows in parts}
    set_words(tasks.values(), tokenizer, settings.data, saved_with(settings.model.model_name_or_path))
    for task in tasks.values():
        if task.verbalizer is not None and task.verbalizer.renamed:
            words = ", ".join(f"{label!r}: {word!r}" for label, word in task.verbalizer.renamed.items())
            print(f"{task.name}: the model says other words for labels: {shortened(words)}")
    rows = {
        split: [tokenise(each, tokenizer, settings.data, by_length=split != "train") for each in parts]
        for split, parts in texts.items()
    }
    for split, parts in rows.items():
        for each in parts:
            check_alike(each.losses, f"{each.task.data_name}, {split}", settings.data.max_source_length)
    return rows


def say_losses(rows: dict[str, list[TaskRows]]) -> None:
    """Warn of what is lost of the texts of each split."""
    for split, parts in rows.items():
        for each in parts:
            for line in each.losses.lines:
                warn_once(f"{each.task.data_name}, {split}: {line}")


def set_generation_length(training, rows: dict[str, list[TaskRows]]) -> None:
    """Set the length of generated texts to that of the longest target. Raises ConfigError if it is set, and shorter."""
    longest = longest_target(rows.values())
    if training.generation_max_length is None:
        training.generation_max_length = longest
    elif training.predict_with_generate and training.generation_max_length < longest:
        raise ConfigError(
            f"generation_max_length is {training.generation_max_length}, but the longest target has {longest} tokens "
            "with those of its start and end, and could never be right; raise it, or leave it out"
        )
