import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.data.span_corruption import SpanCorruptionCollator, random_spans


@given(st.integers(0, 400), st.integers(0, 99))
def test_spans_cover_everything_once(length, seed):
    torch.manual_seed(seed)
    spans = random_spans(length, most=99)
    assert spans[0][0] == 0
    assert spans[-1][2] == length
    assert all(start <= stop <= end for start, stop, end in spans)
    assert all(a[2] == b[0] for a, b in zip(spans, spans[1:], strict=False))
    holes = sum(end - stop for _, stop, end in spans)
    assert holes == min(max(round(0.15 * length), 1), length)
    assert len(spans) == max(min(round(holes / 3), 99, max(length - holes, 1)), 1)


def test_positions_are_corrupted_equally_often():
    torch.manual_seed(0)
    hit = torch.zeros(40)
    for _ in range(4000):
        for _, stop, end in random_spans(40, 99):
            hit[stop:end] += 1
    assert (hit / 4000)[3:].mean() == pytest.approx(0.15, abs=0.02)


def test_holes_fill_the_gaps(tokenizer):
    torch.manual_seed(0)
    collator = SpanCorruptionCollator(tokenizer)
    tokens = list(range(200, 240))
    source, target = collator.corrupt(tokens)
    sentinels = tokenizer.convert_tokens_to_ids([f"<extra_id_{n}>" for n in range(100)])
    assert source[-1] == target[-1] == tokenizer.eos_token_id
    used = [t for t in source if t in sentinels]
    assert used == sentinels[: len(used)]
    assert [t for t in target if t in sentinels] == sentinels[: len(used) + 1]
    holes, current = {}, None
    for token in target[:-1]:
        if token in sentinels:
            current = holes.setdefault(token, [])
        else:
            current.append(token)
    restored = [t for token in source[:-1] for t in holes.get(token, [token])]
    assert restored == tokens


def test_batches_are_padded(tokenizer):
    batch = SpanCorruptionCollator(tokenizer)([{"input_ids": [*range(9, 9 + n), 1]} for n in (4, 20)])
    assert batch["input_ids"].shape == batch["attention_mask"].shape
    assert (batch["input_ids"][0] == tokenizer.pad_token_id).sum() == (batch["attention_mask"][0] == 0).sum() > 0
    assert (batch["labels"] == -100).any()
