import io
import re
import tarfile

import pytest

from common.errors import ConfigError
from seq2seq import sentence_encoder
from seq2seq.arguments import DataTrainingArguments
from seq2seq.data import english_text, get_task
from seq2seq.data.english_text import is_prose, sentences, without_markup
from seq2seq.data.splits import normalise
from seq2seq.data.unlabelled import held_out, rated_sentences, unlabelled_text
from seq2seq.data.variants import COUNT, SHARE, variants
from seq2seq.downloads import fetch_with

WORDNET = """  1 This software and database is provided "AS IS" and WordNet is made of rows | like this one
00002684 00 s 01 nascent(p) 0 001 & 00003356 a 0000 | being born or beginning; "the nascent chicks flew"; "so; it goes"
"""
PAGE = """<mediawiki xmlns="x"><page><text>{{Infobox|a={{b}}}}'''Anarchism''' is a [[political philosophy|view]].&lt;ref
name="a"&gt;A book.&lt;/ref&gt; It has [[File:flag.png|thumb|a [[black]] flag]] many [[school]]s.
{| class="x"
| a table
|}
== Heading ==
* a list</text></page><page><text>#REDIRECT [[Anarchism]]</text></page></mediawiki>"""
EMAIL = """From: a@b.c
Subject: unread
Content-Type: text/plain

Somebody wrote:
> What others have said before is left out.

The first sentence is wrapped
here. The second one asks: why not?
--\x20
A signature that is not read.
"""


@pytest.fixture
def archive(monkeypatch, tmp_path):
    """Return a function that replaces the members of all archives."""

    def replace(members: dict[str, bytes]) -> None:
        path = tmp_path / "archive.tgz"
        with tarfile.open(path, "w:gz") as tar:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        monkeypatch.setattr(english_text.Archive, "path", lambda self: path)

    return replace


def test_wordnet_gives_definitions_and_examples(archive):
    archive({"./usr/share/wordnet/data.adj": WORDNET.encode(), "./usr/share/wordnet/index.adj": b"x"})
    texts = list(english_text.wordnet())
    assert texts == ["nascent: being born or beginning", "the nascent chicks flew", "so; it goes"]


def test_wikipedia_gives_running_text(archive):
    name = "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p1-shortened.bz2"
    archive({name: english_text.bz2.compress(PAGE.encode())})
    texts = [" ".join(text.split()) for text in english_text.wikipedia()]
    assert [text for text in texts if text] == ["Anarchism is a view.", "It has many schools."]


def test_emails_give_what_their_authors_wrote(archive):
    archive({"package/data/easy-ham-1/1.txt": EMAIL.encode(), "package/data/spam-1/1.txt": b"\n\nBuy this now."})
    assert list(english_text.emails()) == ["The first sentence is wrapped here.", "The second one asks: why not?"]


def test_newspapers_give_sentences(archive):
    archive({"gensim/test/test_data/lee_background.cor": b'Rain fell. "It was wet," he said.\nAnother article.\n'})
    assert list(english_text.newspapers()) == ["Rain fell.", '"It was wet," he said.', "Another article."]


def test_newspapers_are_latin_1(archive):
    archive({"gensim/test/test_data/lee.cor": "The café reopened.".encode("latin-1")})
    assert list(english_text.newspapers()) == ["The café reopened."]


def test_sentences_end_before_a_capital_letter():
    assert sentences("It costs 1.50 today. (So what?) Yes!") == ["It costs 1.50 today.", "(So what?)", "Yes!"]


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("A sentence of some words.", True),
        ("Too short.", False),
        ("word " * 61, False),
        ("See http://a.b for all of it", False),
        ("x = 1 + 2 * 3 - 4", False),
        ('They don\'t re-open it, "they" said.', True),
    ],
)
def test_prose(text, prose):
    assert is_prose(text) is prose


def test_markup_without_an_end_is_left_alone():
    assert without_markup("a {{b [[c") == "a {{b [[c"


def test_no_held_out_sentence_is_trained_on(monkeypatch, capsys):
    """However it is written, and only once."""
    secret = rated_sentences("test")["tweets"][0]
    forms = [secret, f"  {secret.upper()} !", "A new sentence of six words.", "a new sentence of six words"]
    monkeypatch.setitem(english_text.SOURCES, "wordnet", lambda: iter(forms))
    kept = unlabelled_text("train", ["rated", "wordnet"])
    assert kept["wordnet"] == ["A new sentence of six words."]
    texts = [normalise(text) for part in kept.values() for text in part]
    assert len(texts) == len(set(texts)) > 16_000
    assert not set(texts) & held_out()
    left_out = re.search(r"left out: (\d+) of a held-out split, (\d+) repetitions", capsys.readouterr().out)
    assert int(left_out[1]) >= 2
    assert int(left_out[2]) >= 1


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "it is empty; allowed: rated, variants, wordnet, newspapers, wikipedia, emails"),
        ({"wordnets": 1}, "'wordnets' is unknown; allowed: rated"),
        ({"rated": 0}, "rated is 0; it must be a whole number, at least 1"),
        ({"rated": 1.5}, "rated is 1.5; it must be a whole number"),
        ({"rated": True}, "rated is True; it must be a whole number"),
        ({"rated": None}, "rated is None; it must be a whole number"),
    ],
)
def test_wrong_sources_are_one_line(sources, message):
    with pytest.raises(ConfigError, match=f"text_sources: {message}"):
        get_task("span-corruption", DataTrainingArguments(text_sources=sources))


def test_variants_have_similar_words_and_keep_what_the_encoder_does_not_know(monkeypatch):
    similar = {"good": ["fine", "nice"], "film": ["movie"]}
    monkeypatch.setattr(sentence_encoder, "similar_words", lambda: similar)
    text = "Good film, zorgless: 7 good-ish  films!"
    drawn = list(variants([text] * 20))
    assert len(drawn) == 20 * COUNT
    assert drawn == list(variants([text] * 20))
    pattern = r"(Good|Fine|Nice) (film|movie), zorgless: 7 (good|fine|nice)-ish  films!"
    found = [re.fullmatch(pattern, each).groups() for each in drawn]
    assert {each[0] for each in found} == {"Good", "Fine", "Nice"}
    kept = sum(word.lower() in similar for each in found for word in each) / (3 * len(found))
    assert abs(kept - (1 - SHARE)) < 0.1


def test_variants_are_made_of_training_sentences_only(monkeypatch):
    monkeypatch.setattr(sentence_encoder, "similar_words", lambda: {"the": ["a"], "is": ["was"]})
    kept = unlabelled_text("train", ["variants"])["variants"]
    known = {normalise(text) for texts in rated_sentences("train").values() for text in texts}
    assert kept
    back = {re.sub(r"\bwas\b", "is", re.sub(r"\ba\b", "the", normalise(text))) for text in kept}
    usual = {re.sub(r"\bwas\b", "is", re.sub(r"\ba\b", "the", text)) for text in known}
    assert back <= usual
    assert not {normalise(text) for text in kept} & held_out()


def test_a_source_is_repeated_in_training(monkeypatch):
    monkeypatch.setitem(english_text.SOURCES, "emails", lambda: iter(["A new sentence of six words."]))
    task = get_task("span-corruption", DataTrainingArguments(text_sources={"emails": 3}))
    assert list(task.load("train")["sentence"]) == ["A new sentence of six words."] * 3
    rated, twice = (get_task("span-corruption", DataTrainingArguments(text_sources={"rated": n})) for n in (1, 2))
    assert len(twice.load("train")) == 2 * len(rated.load("train"))
    assert len(twice.load("validation")) == len(rated.load("validation"))


def test_a_program_that_is_missing_or_fails_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="words.deb is downloaded by no-such-program, which is not installed"):
        fetch_with(("no-such-program",), "words.deb", "0")
    with pytest.raises(ConfigError, match=r"ls /no/such did not bring words.deb \(.*No such file.*\)"):
        fetch_with(("ls", "/no/such"), "words.deb", "0")
    with pytest.raises(ConfigError, match=r"its sha256 is wrong"):
        fetch_with(("touch", "words.deb"), "words.deb", "0")
    with pytest.raises(ConfigError, match=r"true did not bring words.deb"):
        fetch_with(("true",), "words.deb", "0")
    with pytest.raises(ConfigError, match=r"did not bring words.deb \(its sha256 is wrong\)"):
        fetch_with(("sh", "-c", "touch words.deb; echo notice >&2"), "words.deb", "0")
    assert list((tmp_path / "t5-tensor-lab").iterdir()) == []


def test_unpacking_needs_its_program(tmp_path, monkeypatch):
    (tmp_path / "words.deb").write_bytes(b"no archive")
    monkeypatch.setattr(english_text.Archive, "path", lambda self: tmp_path / "words.deb")
    with pytest.raises(ConfigError, match=r"words.deb could not be unpacked by dpkg-deb \(.+\)$"):
        list(english_text.wordnet())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match=r"words.deb is unpacked by dpkg-deb, which is not installed$"):
        list(english_text.wordnet())
