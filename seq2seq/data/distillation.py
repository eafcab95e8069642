"""Distillation from a sentence encoder, first without the decoder, then with it. No ratings are used.

Filling in masked spans needs only the neighbouring words; on so little text it teaches nothing that an adapter can use.
That comes from all-mpnet-base-v2. The encoder's output at each word is trained towards the teacher's states of that
word (as in TinyBERT, Jiao et al. 2020, https://arxiv.org/abs/1909.10351), and the mean of a sentence towards the mean
of its words. The remaining components of the output keep tokens distinguishable, so that a decoder can copy them.
"""

import math
import string
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset
from torch.nn.functional import mse_loss

from seq2seq import initial_weights, sentence_encoder
from seq2seq.data.span_corruption import SpanCorruption, SpanCorruptionCollator
from seq2seq.data.tasks import register
from seq2seq.data.unlabelled import rated_sentences

PREFIXES = ("sentence: ", "vader-movie sentence: ", "")  # of the sources of tasks
RANDOM = 1 / 8  # rows of random signs for each sentence of a batch
SIGNS = string.ascii_letters + string.digits + string.punctuation + " "
MOST_SIGNS = 32  # in a random row
SAMPLE = 16_000  # texts that the initial embedding is fitted to
SENTENCE_WEIGHT = 1.0  # of the loss on sentence means, beside that on words
CODE_WEIGHT = 0.5  # of the loss on the components that tell tokens apart


class Distillation(SpanCorruption):
    """Source: a sentence, or random signs; target: the end token. Only the encoder learns."""

    name = "distillation"
    extra_fields = ("sentence", "number")
    batch_fields = ("word", "sentence_of_word", "vector")
    token_weight = 0.0
    traces = 1  # of tokens before, that each token is to have

    def __init__(self, *given):
        super().__init__(*given)
        self.numbers: dict[str, int] = {}  # of the texts of all splits
        self.projection = self.vectors = self.model = None

    def examples(self, split: str, *given) -> Dataset:
        """Return a split with the columns "source", "target" and "sentence", and with "number", that of the text."""
        rows = super().examples(split, *given)
        return rows.add_column(
            "number", [self.numbers.setdefault(text, len(self.numbers)) for text in rows["sentence"]]
        )

    def source(self, row: Mapping) -> str:
        return f"{PREFIXES[0]}{row['sentence']}"

    def target(self, row: Mapping) -> str:
        return ""

    def initialise(self, model, tokenizer) -> None:
        self.load_teacher()
        initial_weights.initialise(model, tokenizer, list(self.numbers)[:SAMPLE], self.vectors)

    def collator(self, tokenizer, model):
        self.load_teacher()
        self.model = model
        return DistillationCollator(tokenizer, self)

    def load_teacher(self) -> None:
        """Compute what the teacher says of all texts, or read it."""
        if self.vectors is None:
            with PartialState().main_process_first():  # the others read what it has computed
                rated = dict.fromkeys(text for texts in rated_sentences("train").values() for text in texts)
                self.projection = sentence_encoder.projection(list(rated))  # the same for all splits and text_sources
                self.vectors = sentence_encoder.word_vectors(list(self.numbers), self.projection)

    def auxiliary_loss(self, outputs, batch: dict, fields: dict) -> torch.Tensor:
        """Return the mean squared errors of word vectors, of sentence means, and of what tells tokens apart."""
        states = outputs.encoder_last_hidden_state.float()
        size = min(states.shape[-1], self.vectors.size)
        return self._teacher_loss(states[..., :size], fields) + CODE_WEIGHT * self._code_loss(states, batch)

    def _teacher_loss(self, states: torch.Tensor, fields: dict) -> torch.Tensor:
        """Compare with the teacher's vectors, by word and, in units of their deviation, by sentence."""
        word, size = fields["word"], states.shape[-1]
        known = word >= 0
        if not known.any():
            return states.sum() * 0.0
        seen = torch.bincount(word[known], minlength=len(fields["vector"])) > 0
        learned = sentence_encoder.means(states[known], word[known], len(seen))[seen]
        wanted, sentence = fields["vector"][seen, :size], fields["sentence_of_word"][seen]
        rows, place = sentence.unique(return_inverse=True)
        deviation = self.projection.sentence_deviation[:size].to(states.device)
        means = [sentence_encoder.means(each, place, len(rows)) / deviation for each in (learned, wanted)]
        return mse_loss(learned, wanted) + SENTENCE_WEIGHT * mse_loss(*means)

    def _code_loss(self, states: torch.Tensor, batch: dict) -> torch.Tensor:
        """Compare the last components with what copying heads read; else the blocks write over it."""
        size, known = initial_weights.code_size(self.model.config, self.vectors.size), batch["attention_mask"].bool()
        if size == 0:
            return states.sum() * 0.0
        states, codes = states[..., -size:], self.model.get_input_embeddings().weight.detach()[:, -size:]
        start = codes[self.model.config.decoder_start_token_id]
        wanted = initial_weights.codes_with_traces(codes[batch["input_ids"]], start, self.traces)
        return mse_loss(states[known], wanted[known])


class DistillationCollator(SpanCorruptionCollator):
    """Adds rows of random signs to the sentences, and the teacher's vectors to the batch.

    Besides input_ids, attention_mask and labels a batch has

    word: the number of the word that each source token belongs to, (batch, length), or -1.
    vector: the teacher's vector of each word, (words, size); no words if the sources are corrupted.
    sentence_of_word: the row of each word, (words,).
    """

    def __init__(self, tokenizer, task: Distillation):
        super().__init__(tokenizer)
        self.tokenizer, self.limit = tokenizer, task.arguments.max_source_length
        self.vectors = task.vectors

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        tokens, words = self.prefixed(rows)
        tokens += self.tokenizer([random_signs() for _ in range(math.ceil(RANDOM * len(rows)))])["input_ids"]
        return self.complete(self.batch([(each, [self.end]) for each in tokens]), rows, words)

    def prefixed(self, rows: list[dict]) -> tuple[list[list[int]], list[np.ndarray]]:
        """Return `tokens_and_words` of the sentences, each after one of the prefixes."""
        drawn = torch.randint(len(PREFIXES), (len(rows),)).tolist()
        return self.tokens_and_words([row["sentence"] for row in rows], [PREFIXES[n] for n in drawn])

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
        """Return the batch with the teacher's vectors.

        rows: those of the batch that have words, the first ones.
        words: the number of each token's word in the row's text, or -1; by default no row has words.
        """
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
