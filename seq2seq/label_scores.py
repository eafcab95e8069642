"""The probability of each label of a classification task, by the log-probabilities of its words."""

import copy
from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

COPIES = 512  # rows times labels that the decoder sees at once


@torch.inference_mode()
def label_log_probabilities(
    model, batch: dict, words: Sequence[Sequence[int]], task: str | None = None
) -> torch.Tensor:
    """Return the log-probability of each word as the whole answer, in float32, of shape (rows, words).

    The source is encoded once, and the keys and values of the decoder's attention to it are computed once; the words of
    a row share them.

    batch: "input_ids" and "attention_mask", each (rows, length).
    words: the tokens of each word, with its end token: two or more.
    task: the task whose adapters are used, if the model has several.
    """
    mask = batch["attention_mask"]
    with model.task_switch.pinned(task):
        states = model.encoder(**batch)
        start = torch.full((len(mask), 1), model.config.decoder_start_token_id, device=mask.device)
        first = model(encoder_outputs=states, attention_mask=mask, decoder_input_ids=start, use_cache=True)
        firsts = torch.tensor([word[0] for word in words], device=mask.device)
        scores = first.logits[:, 0].float().log_softmax(-1)[:, firsts]
        at_once = max(1, COPIES // len(mask))
        for begin in range(0, len(words), at_once):
            part = slice(begin, begin + at_once)
            scores[:, part] += _rest(model, first.past_key_values, states, mask, words[part])
    return scores


def _rest(model, cache, states, mask: torch.Tensor, words: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the log-probability of all tokens but the first of each word, given the first: (rows, words)."""
    rows, count = len(mask), len(words)
    cache = copy.deepcopy(cache)
    cache.batch_repeat_interleave(count)
    tokens = pad_sequence([torch.tensor(word) for word in words], batch_first=True, padding_value=-1).to(mask.device)
    given, wanted = tokens[:, :-1].clamp(min=0), tokens[:, 1:]
    output = model(
        encoder_outputs=type(states)(last_hidden_state=states[0].repeat_interleave(count, 0)),
        attention_mask=mask.repeat_interleave(count, 0),
        decoder_input_ids=given.repeat(rows, 1),
        past_key_values=cache,
        use_cache=True,
    )
    logs = output.logits.float().log_softmax(-1).view(rows, count, *output.logits.shape[1:])
    chosen = logs.gather(-1, wanted.clamp(min=0).expand(rows, -1, -1).unsqueeze(-1)).squeeze(-1)
    return chosen.masked_fill(wanted < 0, 0.0).sum(-1)
