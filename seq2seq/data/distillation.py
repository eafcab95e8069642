"""Distillation from a sentence encoder, mixed with span corruption and copying. No ratings are used.

Filling in masked spans needs only the neighbouring words; on so little text it teaches nothing that an adapter can use.
That comes from all-mpnet-base-v2. The encoder's output at each word is trained towards the teacher's states of that
word (as in TinyBERT, Jiao et al. 2020, https://arxiv.org/abs/1909.10351), and the mean of a sentence towards the mean
of its words. The decoder learns to read the encoder: it answers a question about the sentence vector ("is component k
above the mean?") with a digit, fills in spans, and copies sentences and strings of random signs.
"""

import string
from collections.abc import Sequence

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch.nn.functional import mse_loss

from seq2seq import initial_weights, sentence_encoder
from seq2seq.data.span_corruption import SpanCorruption, SpanCorruptionCollator
from seq2seq.data.tasks import register

QUESTIONS = 32  # number of components that questions may be about
SHARES = {"corrupt": 0.05, "copy": 0.1}  # of the batches; in the others the decoder is asked a question
ROWS = 4  # of a batch to corrupt or to copy, one in ROWS is used: its targets are long, and cost as much as the rest
PREFIXES = ("sentence: ", "vader-movie sentence: ", "")  # of the sources of tasks
RANDOM = 0.5  # share of the rows to copy that are random
SIGNS = string.ascii_letters + string.digits + string.punctuation + " "
MOST_SIGNS = 32  # in a random row
SAMPLE = 16_000  # texts, the rated ones if they come first, that the projection of the teacher's states is fitted to
SENTENCE_WEIGHT = 1.0  # of the loss on sentence means, beside that on words


class Distillation(SpanCorruption):
    """Source: a sentence; target, for all rows of a batch: answers to questions, the masked spans, or the source."""

    name = "span-corruption+distillation"
    extra_fields = ("sentence", "number")
    batch_fields = ("word", "sentence_of_word", "vector")
    token_weight = 0.01  # the encoder is for the teacher to shape, the decoder follows

    def __init__(self, *given):
        super().__init__(*given)
        self.numbers: dict[str, int] = {}  # of the texts of all splits
        self.projection = self.vectors = None

    def examples(self, split: str, *given) -> Dataset:
        """Return a split with the columns "source", "target" and "sentence", and with "number", that of the text."""
        rows = super().examples(split, *given)
        return rows.add_column(
            "number", [self.numbers.setdefault(text, len(self.numbers)) for text in rows["sentence"]]
        )

    def format(self, row: dict) -> tuple[str, str]:
        return f"{PREFIXES[0]}{row['sentence']}", ""

    def initialise(self, model, tokenizer) -> None:
        self.load_teacher()
        initial_weights.initialise(model, tokenizer, list(self.numbers)[:SAMPLE], self.vectors)

    def collator(self, tokenizer, model):
        self.load_teacher()
        return DistillationCollator(tokenizer, model, self)

    def load_teacher(self) -> None:
        """Compute what the teacher says of all texts, or read it."""
        if self.vectors is None:
            with PartialState().main_process_first():  # the others read what it has computed
                texts = list(self.numbers)
                self.projection = sentence_encoder.projection(texts[:SAMPLE])
                self.vectors = sentence_encoder.word_vectors(texts, self.projection)

    def auxiliary_loss(self, outputs, batch: dict, fields: dict) -> torch.Tensor:
        """Return the mean squared errors of word vectors, and of sentence means in units of their deviation."""
        states, word = outputs.encoder_last_hidden_state.float(), fields["word"]
        known = word >= 0
        if not known.any():
            return states.sum() * 0.0
        seen = torch.bincount(word[known], minlength=len(fields["vector"])) > 0
        learned = sentence_encoder.means(states[known], word[known], len(seen))[seen]
        wanted, sentence = fields["vector"][seen], fields["sentence_of_word"][seen]
        rows, place = sentence.unique(return_inverse=True)
        size = min(learned.shape[1], wanted.shape[1])
        learned, wanted = learned[:, :size], wanted[:, :size]
        deviation = self.projection.sentence_deviation[:size].to(states.device)
        means = [sentence_encoder.means(each, place, len(rows)) / deviation for each in (learned, wanted)]
        return mse_loss(learned, wanted) + SENTENCE_WEIGHT * mse_loss(*means)


class DistillationCollator(SpanCorruptionCollator):
    """Chooses at random what the decoder learns from a batch: to answer a question, to fill in spans, or to copy.

    Questions are the last sentinels, answers the digits 0 and 1. Questions are not predicted: their labels are -100.
    Besides input_ids, attention_mask, decoder_input_ids and labels a batch has

    word: the number of the word that each source token belongs to, (batch, length), or -1.
    vector: the teacher's vector of each word, (words, size); no words if the sources are corrupted.
    sentence_of_word: the row of each word, (words,).
    """

    def __init__(self, tokenizer, model, task: Distillation):
        super().__init__(tokenizer)
        self.tokenizer, self.model, self.limit = tokenizer, model, task.arguments.max_source_length
        self.vectors, self.means = task.vectors, task.projection.sentence_mean
        self.digits = tokenizer.convert_tokens_to_ids(["0", "1"])
        self.sentinels, self.questions = self.sentinels[:-QUESTIONS], self.sentinels[-QUESTIONS:]

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        chosen, few = torch.rand(()).item(), rows[::ROWS]
        if chosen < SHARES["corrupt"]:
            return self.complete(super().__call__(few), [])
        if chosen < SHARES["corrupt"] + SHARES["copy"]:
            return self.copying(few)
        return self.asking(rows)

    def copying(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return a batch whose targets are the sources, a part of which consist of random signs."""
        random = (torch.rand(len(rows)) < RANDOM).tolist()
        sources = [random_signs() if new else row["sentence"] for new, row in zip(random, rows, strict=True)]
        tokens, words = self.tokens_and_words(sources, [""] * len(rows))
        words = [np.full_like(numbers, -1) if new else numbers for new, numbers in zip(random, words, strict=True)]
        return self.complete(self.batch([(each, each) for each in tokens]), rows, words)

    def asking(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Return a batch whose targets are a question and its answer."""
        drawn = torch.randint(len(PREFIXES), (len(rows),)).tolist()
        tokens, words = self.tokens_and_words([row["sentence"] for row in rows], [PREFIXES[n] for n in drawn])
        pairs = []
        for each, row, number in zip(tokens, rows, torch.randint(QUESTIONS, (len(rows),)).tolist(), strict=True):
            component = self.vectors[row["number"]][:, number]
            above = component.sum(dtype=np.float32) > self.means[number] * len(component)
            pairs.append((each, [self.questions[number], self.digits[above]]))
        return self.complete(self.batch(pairs), rows, words)

    def tokens_and_words(self, texts: list[str], prefixes: list[str]) -> tuple[list[list[int]], list[np.ndarray]]:
        """Return the tokens of each prefix and text, and the number of each token's word in the text, or -1."""
        sources = [before + text for before, text in zip(prefixes, texts, strict=True)]
        batch = self.tokenizer(sources, truncation=True, max_length=self.limit, return_offsets_mapping=True)
        words = []
        for source, before, offsets in zip(sources, prefixes, batch["offset_mapping"], strict=True):
            numbers = sentence_encoder.word_numbers(source, np.array(offsets))
            words.append(np.maximum(numbers - len(sentence_encoder.WORD.findall(before)), -1))
        return batch["input_ids"], words

    def complete(self, batch: dict, rows: list[dict], words: Sequence[np.ndarray] = ()) -> dict[str, torch.Tensor]:
        """Return the batch with what the decoder reads, with questions masked, and with the teacher's vectors.

        words: the number of each token's word in the row's text, or -1; by default no row has words.
        """
        labels = batch["labels"]
        batch["decoder_input_ids"] = self.model.prepare_decoder_input_ids_from_labels(labels)
        batch["labels"] = labels.masked_fill(torch.isin(labels, torch.tensor(self.questions)), -100)
        word = np.full(batch["input_ids"].shape, -1)
        vectors, counts = [np.zeros((0, self.vectors.size), np.float16)], []
        for place, (row, numbers) in enumerate(zip(rows, words, strict=bool(words))):
            count = int(numbers.max(initial=-1)) + 1
            word[place, : len(numbers)] = np.where(numbers >= 0, numbers + sum(counts), -1)
            vectors.append(self.vectors[row["number"]][:count])
            counts.append(count)
        batch["word"] = torch.from_numpy(word)
        batch["vector"] = torch.from_numpy(np.concatenate(vectors)).float()
        batch["sentence_of_word"] = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts, dtype=torch.long))
        return batch


def random_signs() -> str:
    """Return 1 to MOST_SIGNS random letters, digits, punctuation marks and spaces."""
    length = int(torch.randint(1, MOST_SIGNS + 1, ()))
    return "".join(SIGNS[n] for n in torch.randint(len(SIGNS), (length,)).tolist())


register(Distillation.name, Distillation)
