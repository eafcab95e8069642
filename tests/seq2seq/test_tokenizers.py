"""Tokenizers that this project trains lose nothing: a small one, and that of t5-nano."""

import random
import string
import sys
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from common.errors import ConfigError
from seq2seq.data.vader import FILES, read_set
from seq2seq.pretraining import train_tokenizer
from third_party.models.t5.configuration_t5 import resolve_name

NAMES = ("small", "t5-nano")
SURROGATES = range(0xD800, 0xE000)  # no characters
NASTY = [
    "</s>",
    "a </s> b <pad><extra_id_0>",
    "<0x41>",
    "<unk>",
    " two  spaces, and one behind ",
    "\n\t\r\x00",
    "a ▁ b",
    "ﬁ Å Å e\u0301 é ① ｆｕｌｌ",  # changed by NFKC
    "7ABC..Z%&*+<=>[\\]^{|}~",
    "emoji 👩‍👩‍👧 中文 עברית \u202e",
    "",
]


@cache
def named(name: str):
    if name == "small":
        return train_tokenizer(read_set("amazon")[0], 700)
    return AutoTokenizer.from_pretrained(resolve_name(name))


@pytest.fixture(params=NAMES)
def lossless(request):
    return named(request.param)


def round_trip(text: str, tokenizer) -> None:
    with_end = tokenizer(text)["input_ids"]
    assert tokenizer.decode(with_end, skip_special_tokens=True) == text
    assert with_end[-1] == tokenizer.eos_token_id
    assert tokenizer.unk_token_id not in with_end
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("text", NASTY)
def test_special_cases_come_back(text, lossless):
    round_trip(text, lossless)


@given(st.text(), st.sampled_from(NAMES))
def test_any_text_comes_back(text, name):
    round_trip(text, named(name))


def test_ten_thousand_random_strings_come_back(lossless):
    rng = random.Random(0)
    characters = [chr(n) for n in range(sys.maxunicode + 1) if n not in SURROGATES]
    texts = ["".join(rng.choices(characters, k=rng.randrange(20))) for _ in range(5_000)]
    texts += ["".join(rng.choices(string.printable, k=rng.randrange(40))) for _ in range(5_000)]
    tokens = lossless(texts)["input_ids"]
    assert lossless.batch_decode(tokens, skip_special_tokens=True) == texts


@pytest.mark.parametrize("name", FILES)
def test_every_line_of_the_embedded_sets_comes_back(name, lossless):
    texts, _ = read_set(name)
    assert lossless.batch_decode(lossless(texts)["input_ids"], skip_special_tokens=True) == texts


def test_digits_and_printable_characters_are_tokens(lossless):
    characters = string.digits + string.ascii_letters + string.punctuation + " "
    assert lossless.unk_token_id not in lossless.convert_tokens_to_ids(list(characters))
    assert lossless.tokenize("1995") == list("1995")
    assert len(lossless("0")["input_ids"]) == len(lossless("1")["input_ids"]) == 2


def test_the_vocabulary_ends_with_a_hundred_sentinels(lossless):
    sentinels = [f"<extra_id_{n}>" for n in range(100)]
    numbers = lossless.convert_tokens_to_ids(sentinels)
    assert numbers == list(range(len(lossless) - 100, len(lossless)))
    filled = lossless("fill <extra_id_0> in", split_special_tokens=False)["input_ids"]
    assert numbers[0] in filled
    assert numbers[0] not in lossless("fill <extra_id_0> in")["input_ids"]


def test_a_saved_tokenizer_is_the_same(tmp_path):
    named("small").save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    for text in NASTY:
        round_trip(text, again)
        assert again(text)["input_ids"] == named("small")(text)["input_ids"]


def test_too_little_text_is_one_line():
    with pytest.raises(ConfigError, match="tokenizer_vocab_size is 9000: .*") as error:
        train_tokenizer(["a few words"], 9000)
    assert "\n" not in str(error.value)


def test_the_smallest_vocabulary_holds_bytes_and_printable_characters():
    with pytest.raises(ConfigError, match="tokenizer_vocab_size is 353; it must be at least 354: bytes and printable"):
        train_tokenizer(["a few words"], 353)
    round_trip("Ünder 354 {pieces}", train_tokenizer(["a few words"], 354))
